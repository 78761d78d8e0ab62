package main

import (
	"net"
	"runtime"
	"sync"
)

// gather writes together what several walkers have to say to one connection. The client shares the cores with what it
// drives, and to the kernel eight messages in one piece are one.
type gather struct {
	conn    net.Conn
	lock    sync.Mutex
	pending []byte
	writing bool
}

// Write appends to what is pending; within say only.
func (g *gather) Write(octets []byte) (int, error) {
	g.pending = append(g.pending, octets...)
	return len(octets), nil
}

// say calls write, which writes to g, and sees to it that what is pending goes. Nobody else writes meanwhile. A connection
// that cannot be written to is closed, of which its reader tells everybody.
func (g *gather) say(write func()) {
	g.lock.Lock()
	write()
	first := !g.writing
	g.writing = true
	g.lock.Unlock()
	if !first {
		return
	}
	// Whoever else is ready to run may join.
	runtime.Gosched()
	var spare []byte
	for {
		g.lock.Lock()
		if len(g.pending) == 0 {
			g.writing = false
			g.lock.Unlock()
			return
		}
		now := g.pending
		g.pending = spare[:0]
		g.lock.Unlock()
		if _, err := g.conn.Write(now); err != nil {
			g.conn.Close()
		}
		spare = now
	}
}
