package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const nchfRoot = "/nchf-convergedcharging/v3/chargingdata"

// nchf is one HTTP/2 connection (cleartext, prior knowledge) with a stream a request.
type nchf struct {
	o       *options
	framer  *http2.Framer
	out     gather // the header encoder and the frames' order are the connection's
	fields  bytes.Buffer
	encoder *hpack.Encoder
	next    uint32
	lock    sync.Mutex
	waiting map[uint32]*nchfAnswer
}

type nchfAnswer struct {
	ready            chan bool
	status, location string
	body             []byte
}

func dialNchf(o *options) (wire, error) {
	conn, err := net.DialTimeout("tcp", o.address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	n := &nchf{o: o, out: gather{conn: conn}, next: 1, waiting: map[uint32]*nchfAnswer{}}
	n.framer = http2.NewFramer(&n.out, conn)
	n.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	n.encoder = hpack.NewEncoder(&n.fields)
	n.out.say(func() {
		n.out.Write([]byte(http2.ClientPreface))
		n.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
		n.framer.WriteWindowUpdate(0, 1<<30)
	})
	go n.read()
	return n, nil
}

func (n *nchf) ask(q *request, again bool) (string, uint64, error) {
	path := q.where
	switch q.kind {
	case initial:
		path = nchfRoot
	case update:
		path += "/update"
	case terminate:
		path += "/release"
	}
	body := n.body(q, again)
	answer := &nchfAnswer{ready: make(chan bool, 1)}
	gone := false
	n.out.say(func() {
		n.fields.Reset()
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":authority", n.o.address}, {":path", path},
			{"authorization", "Bearer " + n.o.token}, {"content-type", "application/json"},
			{"content-length", strconv.Itoa(len(body))},
		} {
			n.encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		n.lock.Lock()
		defer n.lock.Unlock()
		if n.waiting == nil {
			gone = true
			return
		}
		n.waiting[n.next] = answer
		// Some hundred octets a request and few requests: never more than the windows that every server starts with.
		n.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: n.next, BlockFragment: n.fields.Bytes(), EndHeaders: true})
		n.framer.WriteData(n.next, true, body)
		n.next += 2
	})
	if gone {
		return "", 0, errGone
	}
	if ok := <-answer.ready; !ok {
		return "", 0, errGone
	}
	if answer.status[0] != '2' {
		if answer.status == "503" {
			return "", 0, errBusy
		}
		return answer.status, 0, nil
	}
	if q.kind == initial {
		q.where = answer.location
	}
	if q.kind == terminate {
		return done, 0, nil
	}
	var got struct {
		MultipleUnitInformation []struct{ GrantedUnit struct{ TotalVolume uint64 } }
	}
	if err := json.Unmarshal(answer.body, &got); err != nil || len(got.MultipleUnitInformation) == 0 {
		return "no information", 0, nil
	}
	return done, got.MultipleUnitInformation[0].GrantedUnit.TotalVolume, nil
}

// body is a ChargingDataRequest (TS 32.291 clause 6.1.6.2.1.1) as an SMF sends it.
func (n *nchf) body(q *request, again bool) []byte {
	b := make([]byte, 0, 512)
	b = fmt.Appendf(b, `{"subscriberIdentifier":"imsi-%s","nfConsumerIdentification":{"nodeFunctionality":"SMF","nFName":"%s-%s"},`,
		q.imsi, n.o.host, q.epoch)
	b = fmt.Appendf(b, `"chargingId":%d,"invocationTimeStamp":"%s","invocationSequenceNumber":%d,`,
		q.count, q.stamp.Format(time.RFC3339), q.number)
	if again {
		b = append(b, `"retransmissionIndicator":true,`...)
	}
	b = append(b, `"multipleUnitUsage":[{"ratingGroup":1`...)
	if q.kind != terminate {
		b = fmt.Appendf(b, `,"requestedUnit":{"totalVolume":%d}`, n.o.quota)
	}
	if q.kind != initial {
		b = fmt.Appendf(b, `,"usedUnitContainer":[{"localSequenceNumber":%d,"totalVolume":%d}]`, q.number, q.used)
	}
	return append(b, `}]}`...)
}

func (n *nchf) read() {
	defer func() {
		n.out.conn.Close()
		n.lock.Lock()
		for _, answer := range n.waiting {
			answer.ready <- false
		}
		n.waiting = nil
		n.lock.Unlock()
	}()
	var arrived uint32
	for {
		frame, err := n.framer.ReadFrame()
		if err != nil {
			return
		}
		stream, ended := frame.Header().StreamID, false
		n.lock.Lock()
		answer := n.waiting[stream]
		n.lock.Unlock()
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				n.out.say(func() { n.framer.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			data := f.Data
			n.out.say(func() { n.framer.WritePing(true, data) })
		case *http2.GoAwayFrame:
			return
		case *http2.RSTStreamFrame:
			n.finish(stream, answer, false)
		case *http2.MetaHeadersFrame:
			if answer != nil {
				answer.status = f.PseudoValue("status")
				for _, field := range f.RegularFields() {
					if field.Name == "location" {
						answer.location = field.Value
					}
				}
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			if answer != nil {
				answer.body = append(answer.body, f.Data()...)
			}
			if arrived += f.Length; arrived > 1<<24 {
				credit := arrived
				n.out.say(func() { n.framer.WriteWindowUpdate(0, credit) })
				arrived = 0
			}
			ended = f.StreamEnded()
		}
		if ended {
			n.finish(stream, answer, true)
		}
	}
}

func (n *nchf) finish(stream uint32, answer *nchfAnswer, ok bool) {
	if answer == nil {
		return
	}
	n.lock.Lock()
	delete(n.waiting, stream)
	n.lock.Unlock()
	answer.ready <- ok
}

var errBusy = errors.New("refused for now")
