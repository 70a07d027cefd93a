// Go's own runtime at the same work, for stress/bench: defers that live on the heap, and sync.Pool.
//
//	bench WORK GOROUTINES
//
// For each number on stdin one round of so many pairs, all goroutines together; it answers with the CPU time of the whole
// process, in nanoseconds a pair.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

const (
	batch = 64
	depth = 16
	deep  = 1000
)

type record [64]byte

var pool = sync.Pool{New: func() any { return new(record) }}

func nothing() {}

// deferring defers calls in a loop: the compiler cannot keep their records on the stack.
func deferring(n int) {
	for i := 0; i < n; i++ {
		defer nothing()
	}
}

func pair(pairs int) {
	for i := 0; i < pairs; i++ {
		r := pool.Get().(*record)
		r[0] = byte(i)
		pool.Put(r)
	}
}

func burst(pairs int) {
	for done := 0; done < pairs; done += deep {
		deferring(deep)
	}
}

func produce(queue chan<- *[batch]*record, spent <-chan *[batch]*record, pairs int) {
	for done := 0; done < pairs; done += batch {
		b := <-spent
		for i := range b {
			b[i] = pool.Get().(*record)
			b[i][0] = byte(i)
		}
		queue <- b
	}
	close(queue)
}

func consume(queue <-chan *[batch]*record, spent chan<- *[batch]*record) {
	for b := range queue {
		for i := range b {
			pool.Put(b[i])
			b[i] = nil
		}
		spent <- b
	}
}

func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func round(work string, goroutines, pairs int) float64 {
	var all sync.WaitGroup
	each := pairs / goroutines
	start := func(body func()) {
		all.Add(1)
		go func() { defer all.Done(); body() }()
	}
	began := cpu()
	switch work {
	case "pair":
		for i := 0; i < goroutines; i++ {
			start(func() { pair(each) })
		}
	case "burst":
		for i := 0; i < goroutines; i++ {
			start(func() { burst(each) })
		}
	case "pass":
		for i := 0; i < goroutines/2; i++ {
			queue, spent := make(chan *[batch]*record, depth), make(chan *[batch]*record, depth+2)
			for j := 0; j < depth+2; j++ {
				spent <- new([batch]*record)
			}
			start(func() { produce(queue, spent, 2*each) })
			start(func() { consume(queue, spent) })
		}
	default:
		panic("no such work: " + work)
	}
	all.Wait()
	return float64(cpu()-began) / float64(each*goroutines)
}

func main() {
	goroutines, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	fmt.Printf("{\"mode\": %q, \"bound\": null}\n", runtime.Version())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		pairs, err := strconv.Atoi(lines.Text())
		if err != nil {
			panic(err)
		}
		fmt.Printf("{\"ns\": %f, \"peak\": null, \"cached\": 0, \"past\": 0}\n", round(os.Args[1], goroutines, pairs))
	}
}
