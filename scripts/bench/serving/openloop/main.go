// Open-loop HTTP load: requests are due at fixed times whether or not earlier ones were answered, and latency counts
// from the time a request was due, so a slow server (or client) cannot hide its queue. Prints one JSON line.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type seen struct {
	accepted, rejected []float64 // µs from the due time
	failed             int
	retryAfter         int // rejections that carry Retry-After
}

type worker struct {
	address string
	bodies  [][]byte
	socket  net.Conn
	reader  *bufio.Reader
	seen    seen
}

// exchange sends one request and reads its answer; it reports the status and whether Retry-After was there. It reads no
// more of the head than it must, because the generator takes its time from the server's cores.
func (w *worker) exchange(request []byte) (status int, retry bool, err error) {
	if w.socket == nil {
		if w.socket, err = net.DialTimeout("tcp", w.address, 5*time.Second); err != nil {
			return 0, false, err
		}
		w.reader = bufio.NewReader(w.socket)
	}
	if _, err = w.socket.Write(request); err != nil {
		return 0, false, err
	}
	line, err := w.reader.ReadSlice('\n')
	if err != nil || len(line) < len("HTTP/1.1 200") {
		return 0, false, errors.Join(err, io.ErrUnexpectedEOF)
	}
	status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	length := 0
	for {
		if line, err = w.reader.ReadSlice('\n'); err != nil {
			return 0, false, err
		}
		if len(line) <= 2 {
			break
		}
		if value, found := bytes.CutPrefix(line, []byte("content-length: ")); found {
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
		retry = retry || bytes.HasPrefix(line, []byte("retry-after:"))
	}
	if err == nil {
		_, err = w.reader.Discard(length)
	}
	return status, retry, err
}

func (w *worker) run(due <-chan time.Time, done *sync.WaitGroup) {
	defer done.Done()
	number := 0
	for at := range due {
		status, retry, err := w.exchange(w.bodies[number%len(w.bodies)])
		number++
		late := float64(time.Since(at)) / 1e3
		switch {
		case err == nil && status == 200:
			w.seen.accepted = append(w.seen.accepted, late)
		case err == nil && status == 429:
			w.seen.rejected = append(w.seen.rejected, late)
			if retry {
				w.seen.retryAfter++
			}
		default:
			w.seen.failed++
		}
		if err != nil && w.socket != nil {
			w.socket.Close()
			w.socket = nil
		}
	}
}

func share(sorted []float64, part float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(part*float64(len(sorted)-1))]
}

func requests(folder string, count int, address, path string, headers []string) [][]byte {
	var found [][]byte
	for number := range count {
		body, err := os.ReadFile(filepath.Join(folder, strconv.Itoa(number)))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", path, address, len(body))
		for _, header := range headers {
			name, value, _ := strings.Cut(header, "=")
			fmt.Fprintf(&text, "%s: %s\r\n", name, value)
		}
		text.WriteString("\r\n")
		text.Write(body)
		found = append(found, text.Bytes())
	}
	return found
}

func main() {
	address := flag.String("address", "", "host:port")
	path := flag.String("path", "", "path of the request")
	folder := flag.String("bodies", "", "folder of bodies 0, 1, …")
	count := flag.Int("count", 1, "how many bodies there are")
	rate := flag.Float64("rate", 100, "requests a second")
	seconds := flag.Float64("seconds", 1, "how long")
	connections := flag.Int("connections", 512, "the most requests in flight")
	flag.Parse()

	bodies := requests(*folder, *count, *address, *path, flag.Args())
	total := int(*rate * *seconds)
	due := make(chan time.Time, total)
	workers := make([]*worker, *connections)
	var done sync.WaitGroup
	for i := range workers {
		workers[i] = &worker{address: *address, bodies: bodies}
		done.Add(1)
		go workers[i].run(due, &done)
	}
	start := time.Now()
	for sent := 0; sent < total; {
		for elapsed := time.Since(start).Seconds(); sent < total && float64(sent) <= elapsed**rate; sent++ {
			due <- start.Add(time.Duration(float64(sent) / *rate * 1e9))
		}
		time.Sleep(200 * time.Microsecond)
	}
	close(due)
	done.Wait()
	var all seen
	for _, w := range workers {
		all.accepted = append(all.accepted, w.seen.accepted...)
		all.rejected = append(all.rejected, w.seen.rejected...)
		all.failed += w.seen.failed
		all.retryAfter += w.seen.retryAfter
	}
	slices.Sort(all.accepted)
	slices.Sort(all.rejected)
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"offered": total, "seconds": time.Since(start).Seconds(), "accepted": len(all.accepted), "rejected": len(all.rejected),
		"retry_after": all.retryAfter, "failed": all.failed, "accepted_p50": share(all.accepted, .5),
		"accepted_p99": share(all.accepted, .99), "rejected_p99": share(all.rejected, .99),
	})
}
