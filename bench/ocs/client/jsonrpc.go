package main

import (
	"bufio"
	"encoding/json"
	"net"
	"strconv"
	"sync"
	"time"
)

// jsonRPC is one connection to CGRateS's JSON-RPC; answers find their requests by the id.
type jsonRPC struct {
	o       *options
	out     gather
	lock    sync.Mutex
	waiting map[uint64]chan rpcAnswer
	next    uint64
}

type rpcAnswer struct {
	ID     uint64
	Error  any
	Result struct{ MaxUsage uint64 }
}

type rpcEvent struct {
	InitSession, UpdateSession, TerminateSession bool `json:",omitempty"`
	Tenant, ID                                   string
	Event                                        map[string]any
}

var rpcMethods = map[uint32]string{
	initial: "SessionSv1.InitiateSession", update: "SessionSv1.UpdateSession", terminate: "SessionSv1.TerminateSession",
}

func dialJSONRPC(o *options) (wire, error) {
	conn, err := net.DialTimeout("tcp", o.address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	j := &jsonRPC{o: o, out: gather{conn: conn}, waiting: map[uint64]chan rpcAnswer{}}
	go j.read()
	return j, nil
}

func (j *jsonRPC) ask(q *request, again bool) (string, uint64, error) {
	event := rpcEvent{
		InitSession: q.kind == initial, UpdateSession: q.kind == update, TerminateSession: q.kind == terminate,
		Tenant: "cgrates.org", ID: q.session + ";" + strconv.Itoa(int(q.number)),
		Event: map[string]any{
			"ToR": "*data", "OriginID": q.session, "OriginHost": j.o.host, "RequestType": "*prepaid",
			"Category": "generic", "Account": q.imsi, "Destination": "data", "SetupTime": q.stamp, "AnswerTime": q.stamp,
		},
	}
	if q.kind != terminate {
		event.Event["Usage"] = strconv.FormatUint(j.o.quota, 10)
	}
	if q.kind != initial {
		event.Event["LastUsed"] = strconv.FormatUint(q.used, 10)
	}
	answer := make(chan rpcAnswer, 1)
	j.lock.Lock()
	if j.waiting == nil {
		j.lock.Unlock()
		return "", 0, errGone
	}
	j.next++
	id := j.next
	j.waiting[id] = answer
	j.lock.Unlock()
	text, err := json.Marshal(map[string]any{"method": rpcMethods[q.kind], "params": []any{event}, "id": id})
	if err != nil {
		return "", 0, err
	}
	j.out.say(func() { j.out.Write(append(text, '\n')) })
	got, ok := <-answer
	if !ok {
		return "", 0, errGone
	}
	if text, failed := got.Error.(string); failed && text != "" {
		return text, 0, nil
	}
	return done, got.Result.MaxUsage, nil
}

func (j *jsonRPC) read() {
	defer func() {
		j.out.conn.Close()
		j.lock.Lock()
		for _, answer := range j.waiting {
			close(answer)
		}
		j.waiting = nil
		j.lock.Unlock()
	}()
	in := bufio.NewReaderSize(j.out.conn, 1<<18)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		var got struct {
			ID     uint64
			Error  any
			Result json.RawMessage
		}
		if json.Unmarshal(line, &got) != nil {
			return
		}
		found := rpcAnswer{ID: got.ID, Error: got.Error}
		// A terminate answers with a word.
		json.Unmarshal(got.Result, &found.Result)
		j.lock.Lock()
		answer := j.waiting[got.ID]
		delete(j.waiting, got.ID)
		j.lock.Unlock()
		if answer != nil {
			answer <- found
		}
	}
}
