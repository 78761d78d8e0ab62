// A closed-loop charging client: so many requests outstanding, initial, update and terminate in turn, over Gy, Nchf or
// CGRateS's JSON-RPC. Prints one JSON document.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type options struct {
	protocol, address, token string
	host, realm, destination string
	first                    uint64
	accounts, outstanding    int
	seconds, patience        float64
	quota, used              uint64
	duplicates               float64
}

const (
	initial   = 1
	update    = 2
	terminate = 3
	// done is the result of a request that was granted, whatever the protocol calls it.
	done = "done"
)

// request is one step of a session; `where` is what Nchf's answer to the first one calls it.
type request struct {
	session, epoch, imsi, where string
	count, kind, number, id     uint32
	used                        uint64
	stamp                       time.Time
}

// wire is a connection: a result (done, or a code), what was granted, or the connection's end.
type wire interface {
	ask(q *request, again bool) (string, uint64, error)
}

var dialers = map[string]func(*options) (wire, error){"gy": dialGy, "nchf": dialNchf, "jsonrpc": dialJSONRPC}

// tally is what a run found.
type tally struct {
	lock    sync.Mutex
	times   []time.Duration
	results map[string]int
	doubled int
	lost    int
	used    uint64
}

// shared is the one connection of an address's walkers; who finds it gone makes the next.
type shared struct {
	lock    sync.Mutex
	wire    wire
	o       *options
	redials int
}

func (s *shared) current(old wire) (wire, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.wire != old && s.wire != nil {
		return s.wire, nil
	}
	until := time.Now().Add(time.Duration(s.o.patience * float64(time.Second)))
	for {
		made, err := dialers[s.o.protocol](s.o)
		if err == nil {
			s.wire = made
			s.redials++
			return made, nil
		}
		if time.Now().After(until) {
			return nil, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var ids atomic.Uint32

// request sends one request until it is answered; a repeat over a new connection says that it is one.
func (s *shared) request(t *tally, q *request, double bool) (bool, uint64) {
	q.id = ids.Add(1)
	again := false
	w, err := s.current(nil)
	started := time.Now()
	for {
		if err != nil {
			t.note("unanswered", 0)
			return false, 0
		}
		var second chan struct{}
		if double && q.id%2 == 0 {
			// Half of the duplicates overtake the answer, the other half follow it.
			second = make(chan struct{})
			twin := *q
			go func(w wire) {
				w.ask(&twin, true)
				close(second)
			}(w)
		}
		var result string
		var granted uint64
		result, granted, err = w.ask(q, again)
		if second != nil {
			<-second
		}
		if err == nil {
			t.note(result, time.Since(started))
			if double && q.id%2 == 1 {
				twin := *q
				w.ask(&twin, true)
			}
			return result == done, granted
		}
		again = true
		t.lock.Lock()
		t.lost++
		t.lock.Unlock()
		if err == errBusy {
			time.Sleep(20 * time.Millisecond)
			err = nil
			continue
		}
		w, err = s.current(w)
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

// walk runs sessions of one account after the other until the time is up; a session that has begun is ended.
func walk(s *shared, t *tally, worker int, until time.Time, epoch int64) {
	o := s.o
	// Walkers of different connections walk different ways.
	seed := fnv.New64a()
	fmt.Fprintf(seed, "%s;%d;%d", o.host, epoch, worker)
	random := rand.New(rand.NewSource(int64(seed.Sum64())))
	for n := 0; time.Now().Before(until); n++ {
		q := &request{
			session: fmt.Sprintf("%d;%d", epoch, worker<<24|n), epoch: strconv.FormatInt(epoch, 10),
			imsi: fmt.Sprintf("%015d", o.first+uint64(random.Intn(o.accounts))), count: uint32(worker<<24 | n),
			kind: initial, stamp: time.Now().UTC(),
		}
		ok, got := s.request(t, q, false)
		if !ok {
			continue
		}
		used, last := o.used, o.used/2
		if got < used {
			t.note("granted too little", 0)
			used, last = got, 0
		}
		t.add(used)
		q.kind, q.number, q.used = update, 1, used
		s.request(t, q, t.double(o, random))
		t.add(last)
		q.kind, q.number, q.used = terminate, 2, last
		s.request(t, q, t.double(o, random))
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
	flag.StringVar(&o.protocol, "protocol", "gy", "gy, nchf or jsonrpc")
	flag.StringVar(&o.token, "token", "", "bearer token of a brand, for nchf")
	flag.StringVar(&o.address, "address", "127.0.0.1:3868", "host:port of the OCS; several, separated by commas, share the requests")
	flag.StringVar(&o.host, "host", "pgw.bench", "Origin-Host; for several addresses one each")
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
	// Threads that look for work would take from the cores that the systems share with the client.
	runtime.GOMAXPROCS(1)
	if dialers[o.protocol] == nil {
		fmt.Fprintln(os.Stderr, "no such protocol:", o.protocol)
		os.Exit(2)
	}
	addresses, hosts := strings.Split(o.address, ","), strings.Split(o.host, ",")
	if len(hosts) != len(addresses) {
		fmt.Fprintln(os.Stderr, "as many hosts as addresses, please")
		os.Exit(2)
	}
	t := &tally{results: map[string]int{}}
	var all []*shared
	for i, address := range addresses {
		one := *o
		one.address, one.host = address, hosts[i]
		s := &shared{o: &one}
		if _, err := s.current(nil); err != nil {
			fmt.Fprintln(os.Stderr, "cannot connect:", err)
			os.Exit(1)
		}
		all = append(all, s)
	}
	started := time.Now()
	until := started.Add(time.Duration(o.seconds * float64(time.Second)))
	var walkers sync.WaitGroup
	for worker := 0; worker < o.outstanding; worker++ {
		walkers.Add(1)
		go func() {
			defer walkers.Done()
			walk(all[worker%len(all)], t, worker, until, started.Unix())
		}()
	}
	walkers.Wait()
	took := time.Since(started).Seconds()
	redials := 0
	for _, s := range all {
		redials += s.redials
	}
	sort.Slice(t.times, func(i, j int) bool { return t.times[i] < t.times[j] })
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(t.times), "seconds": took, "rate": float64(len(t.times)) / took,
		"p50": t.percentile(0.5), "p99": t.percentile(0.99), "max": t.percentile(1),
		"results": t.results, "duplicates": t.doubled, "lost": t.lost, "connections": redials, "used": t.used,
	})
}
