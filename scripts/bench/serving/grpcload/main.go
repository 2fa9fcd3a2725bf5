// Closed-loop gRPC load, one unary call at a time on each connection, written straight to HTTP/2 frames: general
// clients spend more on a call than the servers do and would measure themselves. A call counts as good when its answer
// carries a message, as no failed call of gRPC does. Prints one JSON line; times are in µs.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway, frameWindow = 0, 1, 3, 4, 6, 7, 8
	flagEnd, flagAck, flagEndHeaders                                                        = 1, 1, 4
	windowStep                                                                              = 16 << 10
)

func frame(out []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	out = append(out, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	out = binary.BigEndian.AppendUint32(out, stream)
	return append(out, payload...)
}

// headers is the HPACK block of a call: indexed static fields and literals that enter no table.
func headers(authority, path string) []byte {
	literal := func(out []byte, text string) []byte { return append(append(out, byte(len(text))), text...) }
	out := []byte{0x83, 0x86, 0x04} // :method POST, :scheme http, :path
	out = literal(out, path)
	out = literal(append(out, 0x01), authority) // :authority
	out = literal(append(out, 0x0f, 0x10), "application/grpc")
	out = literal(append(out, 0x00), "te")
	return literal(out, "trailers")
}

type connection struct {
	socket   net.Conn
	reader   *bufio.Reader
	block    []byte
	body     []byte
	out      []byte
	payload  []byte
	consumed uint32
	stream   uint32
}

func open(address, path string, message []byte) (*connection, error) {
	socket, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	c := &connection{socket: socket, reader: bufio.NewReader(socket), block: headers(address, path), body: append(body, message...), stream: 1}
	_, err = socket.Write(frame([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frameSettings, 0, 0, nil))
	return c, err
}

// call makes one call and reports whether a message came back.
func (c *connection) call() (bool, error) {
	c.out = frame(c.out[:0], frameHeaders, flagEndHeaders, c.stream, c.block)
	c.out = frame(c.out, frameData, flagEnd, c.stream, c.body)
	c.socket.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.socket.Write(c.out); err != nil {
		return false, err
	}
	message := false
	for {
		kind, flags, stream, err := c.read()
		if err != nil {
			return false, err
		}
		c.out = c.out[:0]
		switch kind {
		case frameData:
			message = message || len(c.payload) > 5
			if c.consumed += uint32(len(c.payload)); c.consumed > windowStep {
				c.out = frame(c.out, frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, c.consumed))
				c.consumed = 0
			}
		case frameSettings, framePing:
			if flags&flagAck == 0 {
				answer := c.payload
				if kind == frameSettings {
					answer = nil
				}
				c.out = frame(c.out, kind, flagAck, 0, answer)
			}
		case frameReset, frameGoAway:
			return false, fmt.Errorf("the server ended the stream or the connection")
		}
		if len(c.out) > 0 {
			if _, err := c.socket.Write(c.out); err != nil {
				return false, err
			}
		}
		if stream == c.stream && flags&flagEnd != 0 && (kind == frameHeaders || kind == frameData) {
			c.stream += 2
			return message, nil
		}
	}
}

func (c *connection) read() (kind, flags byte, stream uint32, err error) {
	var head [9]byte
	if _, err = io.ReadFull(c.reader, head[:]); err != nil {
		return
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	c.payload = slices.Grow(c.payload[:0], length)[:length]
	_, err = io.ReadFull(c.reader, c.payload)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), err
}

func main() {
	address := flag.String("address", "", "host:port")
	path := flag.String("path", "/inference.GRPCInferenceService/ModelInfer", "the method")
	file := flag.String("message", "", "file with the serialised request")
	connections := flag.Int("connections", 1, "how many connections")
	seconds := flag.Float64("seconds", 1, "how long")
	flag.Parse()
	message, err := os.ReadFile(*file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var done sync.WaitGroup
	var lock sync.Mutex
	var times []float64
	failed := 0
	start := time.Now()
	for range *connections {
		done.Add(1)
		go func() {
			defer done.Done()
			var mine []float64
			bad := 0
			c, err := open(*address, *path, message)
			for err == nil && time.Since(start).Seconds() < *seconds {
				var good bool
				sent := time.Now()
				if good, err = c.call(); good && err == nil {
					mine = append(mine, float64(time.Since(sent))/1e3)
				} else {
					bad++
				}
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				bad++
			}
			lock.Lock()
			defer lock.Unlock()
			times = append(times, mine...)
			failed += bad
		}()
	}
	done.Wait()
	elapsed := time.Since(start).Seconds()
	slices.Sort(times)
	share := func(part float64) float64 {
		if len(times) == 0 {
			return 0
		}
		return times[int(part*float64(len(times)-1))]
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(times), "seconds": elapsed, "p50": share(.5), "p99": share(.99), "failed": failed,
	})
}
