package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var errGone = errors.New("the connection is gone")

// link is one Diameter connection; answers find their requests by the hop-by-hop identifier.
// Repeats keep their end-to-end identifier.
type link struct {
	o       *options
	out     gather
	lock    sync.Mutex
	waiting map[uint32]chan []byte
	hops    atomic.Uint32
}

// dialGy connects and exchanges capabilities.
func dialGy(o *options) (wire, error) {
	conn, err := net.DialTimeout("tcp", o.address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	l := &link{o: o, out: gather{conn: conn}, waiting: map[uint32]chan []byte{}}
	go l.read()
	body := avp(nil, 264, []byte(o.host))
	body = avp(body, 296, []byte(o.realm))
	body = avp(body, 257, []byte{0, 1, 127, 0, 0, 1})
	body = avp32(body, 266, 0)
	body = avp(body, 269, []byte("bench"))
	body = avp32(body, 258, appCreditControl)
	answer, err := l.exchange(flagRequest, cmdCapabilities, 0, 1, body)
	if err == nil && number(find(answer[20:], 268)) != 2001 {
		err = errors.New("the capabilities were refused")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

// ask is the wire's: a CCR, and what its answer grants.
func (l *link) ask(q *request, again bool) (string, uint64, error) {
	flags := byte(flagRequest | flagProxiable)
	if again {
		flags |= flagRetransmitted
	}
	answer, err := l.exchange(flags, cmdCreditControl, appCreditControl, q.id, ccr(l.o, q))
	if err != nil {
		return "", 0, err
	}
	result := number(find(answer[20:], 268))
	if result != 2001 {
		return strconv.FormatUint(result, 10), 0, nil
	}
	return done, number(find(find(find(answer[20:], 456), 431), 421)), nil
}

// exchange sends a message and waits for its answer, or for the end of the connection.
func (l *link) exchange(flags byte, command, application, end uint32, body []byte) ([]byte, error) {
	hop := l.hops.Add(1)
	answer := make(chan []byte, 1)
	l.lock.Lock()
	if l.waiting == nil {
		l.lock.Unlock()
		return nil, errGone
	}
	l.waiting[hop] = answer
	l.lock.Unlock()
	l.out.say(func() { l.out.Write(message(flags, command, application, hop, end, body)) })
	got, ok := <-answer
	if !ok {
		return nil, errGone
	}
	return got, nil
}

func (l *link) read() {
	defer func() {
		l.out.conn.Close()
		l.lock.Lock()
		for _, answer := range l.waiting {
			close(answer)
		}
		l.waiting = nil
		l.lock.Unlock()
	}()
	in := bufio.NewReaderSize(l.out.conn, 1<<18)
	for {
		head, err := in.Peek(4)
		if err != nil {
			return
		}
		m := make([]byte, binary.BigEndian.Uint32(head)&0xFFFFFF)
		if _, err := io.ReadFull(in, m); err != nil || len(m) < 20 {
			return
		}
		hop := binary.BigEndian.Uint32(m[12:])
		command := binary.BigEndian.Uint32(m[4:]) & 0xFFFFFF
		if m[4]&flagRequest != 0 {
			if command == cmdWatchdog || command == cmdDisconnect {
				end := binary.BigEndian.Uint32(m[16:])
				l.out.say(func() { l.out.Write(message(0, command, 0, hop, end, avp32(nil, 268, 2001))) })
			}
			continue
		}
		l.lock.Lock()
		answer := l.waiting[hop]
		delete(l.waiting, hop)
		l.lock.Unlock()
		if answer != nil {
			answer <- m
		}
	}
}
