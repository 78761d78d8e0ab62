// A closed-loop Gy client: so many requests outstanding, initial, update and terminate in turn. Prints one JSON document.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type options struct {
	address, host, realm, destination string
	first                             uint64
	accounts, outstanding             int
	seconds, patience                 float64
	quota, used                       uint64
	duplicates                        float64
}

// tally is what a run found.
type tally struct {
	lock    sync.Mutex
	times   []time.Duration
	results map[string]int
	doubled int
	lost    int
	used    uint64
}

// shared is the one connection of all walkers; who finds it gone makes the next.
type shared struct {
	lock    sync.Mutex
	link    *link
	o       *options
	redials int
}

func (s *shared) current(old *link) (*link, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.link != old && s.link != nil {
		return s.link, nil
	}
	until := time.Now().Add(time.Duration(s.o.patience * float64(time.Second)))
	for {
		made, err := dial(s.o)
		if err == nil {
			s.link = made
			s.redials++
			return made, nil
		}
		if time.Now().After(until) {
			return nil, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var ends atomic.Uint32

// request sends one request until it is answered; a repeat over a new connection carries the T flag.
func (s *shared) request(t *tally, body []byte, double bool) (uint64, []byte) {
	end := ends.Add(1)
	flags := byte(flagRequest | flagProxiable)
	l, err := s.current(nil)
	started := time.Now()
	for {
		if err != nil {
			t.note("unanswered", 0)
			return 0, nil
		}
		var second chan struct{}
		if double && end%2 == 0 {
			// Half of the duplicates overtake the answer, the other half follow it.
			second = make(chan struct{})
			go func(l *link) {
				l.ask(flags|flagRetransmitted, cmdCreditControl, appCreditControl, end, body)
				close(second)
			}(l)
		}
		var answer []byte
		answer, err = l.ask(flags, cmdCreditControl, appCreditControl, end, body)
		if second != nil {
			<-second
		}
		if err == nil {
			result := number(find(answer[20:], 268))
			t.note(strconv.FormatUint(result, 10), time.Since(started))
			if double && end%2 == 1 {
				l.ask(flags|flagRetransmitted, cmdCreditControl, appCreditControl, end, body)
			}
			return result, answer
		}
		flags |= flagRetransmitted
		t.lock.Lock()
		t.lost++
		t.lock.Unlock()
		l, err = s.current(l)
	}
}

func (t *tally) note(result string, took time.Duration) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.results[result]++
	if took > 0 {
		t.times = append(t.times, took)
	}
}

func (t *tally) percentile(share float64) float64 {
	if len(t.times) == 0 {
		return 0
	}
	return float64(t.times[int(share*float64(len(t.times)-1))].Microseconds()) / 1000
}

func granted(answer []byte) uint64 {
	if answer == nil {
		return 0
	}
	service := find(answer[20:], 456)
	return number(find(find(service, 431), 421))
}

// walk runs sessions of one account after the other until the time is up; a session that has begun is ended.
func walk(s *shared, t *tally, worker int, until time.Time, epoch int64) {
	o := s.o
	random := rand.New(rand.NewSource(int64(worker) + epoch))
	for n := 0; time.Now().Before(until); n++ {
		imsi := fmt.Sprintf("%015d", o.first+uint64(random.Intn(o.accounts)))
		session := fmt.Sprintf("%s;%d;%d;bench", o.host, epoch, worker<<24|n)
		stamp := uint32(time.Now().Unix() + 2208988800)
		quota, used, last := o.quota, o.used, o.used/2
		result, answer := s.request(t, ccr(o, session, imsi, 1, 0, &quota, nil, stamp), false)
		if result != 2001 {
			continue
		}
		if got := granted(answer); got < used {
			t.note("granted too little", 0)
			used, last = got, 0
		}
		t.add(used)
		s.request(t, ccr(o, session, imsi, 2, 1, &quota, &used, stamp), t.double(o, random))
		t.add(last)
		s.request(t, ccr(o, session, imsi, 3, 2, nil, &last, stamp), t.double(o, random))
	}
}

func (t *tally) add(used uint64) {
	t.lock.Lock()
	t.used += used
	t.lock.Unlock()
}

func (t *tally) double(o *options, random *rand.Rand) bool {
	if o.duplicates == 0 || random.Float64() >= o.duplicates {
		return false
	}
	t.lock.Lock()
	t.doubled++
	t.lock.Unlock()
	return true
}

func main() {
	o := &options{}
	flag.StringVar(&o.address, "address", "127.0.0.1:3868", "host:port of the OCS")
	flag.StringVar(&o.host, "host", "pgw.bench", "Origin-Host")
	flag.StringVar(&o.realm, "realm", "bench", "Origin-Realm")
	flag.StringVar(&o.destination, "destination", "bench", "Destination-Realm")
	flag.Uint64Var(&o.first, "first", 208930000000000, "first IMSI")
	flag.IntVar(&o.accounts, "accounts", 1000, "accounts")
	flag.IntVar(&o.outstanding, "outstanding", 16, "requests under way")
	flag.Float64Var(&o.seconds, "seconds", 10, "time")
	flag.Float64Var(&o.patience, "patience", 30, "seconds to wait for an OCS that is gone")
	flag.Uint64Var(&o.quota, "quota", 10<<20, "octets asked for")
	flag.Uint64Var(&o.used, "used", 10<<20, "octets reported in an update; half of it in a terminate")
	flag.Float64Var(&o.duplicates, "duplicates", 0, "share of updates and terminates that are sent twice")
	flag.Parse()
	t := &tally{results: map[string]int{}}
	s := &shared{o: o}
	if _, err := s.current(nil); err != nil {
		fmt.Fprintln(os.Stderr, "cannot connect:", err)
		os.Exit(1)
	}
	started := time.Now()
	until := started.Add(time.Duration(o.seconds * float64(time.Second)))
	var walkers sync.WaitGroup
	for worker := 0; worker < o.outstanding; worker++ {
		walkers.Add(1)
		go func() {
			defer walkers.Done()
			walk(s, t, worker, until, started.Unix())
		}()
	}
	walkers.Wait()
	took := time.Since(started).Seconds()
	sort.Slice(t.times, func(i, j int) bool { return t.times[i] < t.times[j] })
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(t.times), "seconds": took, "rate": float64(len(t.times)) / took,
		"p50": t.percentile(0.5), "p99": t.percentile(0.99), "max": t.percentile(1),
		"results": t.results, "duplicates": t.doubled, "lost": t.lost, "connections": s.redials, "used": t.used,
	})
}
