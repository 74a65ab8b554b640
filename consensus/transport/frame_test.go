package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/lni/dragonboat/v4/raftpb"
)

func TestHelloSurvives(t *testing.T) {
	h := hello{version: version, purpose: forChunks, replica: 1 << 40, generation: 1 << 63, group: testGroup, address: "[2001:db8::1]:33061"}
	p, err := readBlock(bufio.NewReader(bytes.NewReader(h.append(nil))))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseHello(p); err != nil || got != h {
		t.Fatal(got, err)
	}
	// One of another version is understood as far as that.
	h.version = 9
	if got, err := parseHello(append(h.append(nil)[2:], "more"...)); err != nil || got != (hello{version: 9}) {
		t.Fatal(got, err)
	}
	for _, bad := range []hello{
		{version: version, purpose: 4, replica: 1, group: "g", address: "a:1"},
		{version: version, purpose: 1, replica: 0, group: "g", address: "a:1"},
		{version: version, purpose: 1, replica: 1, group: "g", address: "a:0"},
		{version: version, purpose: 1, replica: 1, group: "g", address: strings.Repeat("a", 400) + ":1"},
	} {
		if _, err := parseHello(bad.append(nil)[2:]); !errors.Is(err, ErrFrame) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestReplySurvives(t *testing.T) {
	for _, reason := range []string{"", "no", strings.Repeat("x", 2*maxReason)} {
		p, err := readBlock(bufio.NewReader(bytes.NewReader(appendReply(nil, reason))))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseReply(p); err != nil || got != reason[:min(len(reason), maxReason)] {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// sealed makes a frame.
func sealed(typ frameType, payload []byte, sum bool) []byte {
	b, p := growFrame(nil, len(payload))
	copy(p, payload)
	sealFrame(b, typ, sum)
	return b
}

func TestFramesSurvive(t *testing.T) {
	for _, sum := range []bool{true, false} {
		var stream []byte
		sizes := []int{1, 100, readBuffer - headSize, readBuffer, readBuffer + 1, keepBuffer + 5, 5<<20 + 1, 3}
		for i, n := range sizes {
			stream = append(stream, sealed(frameType(i+1), bytes.Repeat([]byte{byte(i)}, n), sum)...)
		}
		f := &frameReader{r: bufio.NewReaderSize(bytes.NewReader(stream), readBuffer), sum: sum}
		for i, n := range sizes {
			typ, p, err := f.next()
			if err != nil || typ != frameType(i+1) || !bytes.Equal(p, bytes.Repeat([]byte{byte(i)}, n)) {
				t.Fatalf("frame %d: type %d, %d bytes, %v", i, typ, len(p), err)
			}
		}
		if _, _, err := f.next(); err != io.EOF {
			t.Fatal(err)
		}
	}
}

func TestDamagedFrames(t *testing.T) {
	good := sealed(frameBatch, bytes.Repeat([]byte("abc"), 50), true)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		f := &frameReader{r: bufio.NewReaderSize(bytes.NewReader(bad), readBuffer), sum: true}
		if _, _, err := f.next(); err == nil {
			t.Fatalf("a flipped bit in byte %d went through", i)
		}
	}
}

// Whatever arrives, reading ends with an error, takes no more memory than came
// in, and what it returns can be checked.
func FuzzFrames(f *testing.F) {
	b := batchOf(100)
	p, err := b.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	c := raftpb.Chunk{ShardID: 1, ReplicaID: 1, From: 2, Filepath: "/a/b", Data: []byte("data")}
	q, err := c.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed(frameBatch, p, true), true)
	f.Add(sealed(frameBatch|flagAsk, p, false), false)
	f.Add(sealed(frameChunk|flagAsk, q, false), false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 9}, false)
	f.Add([]byte{4, 0, 0, 0, 1, 0, 0, 0, 0, 9}, false)
	f.Fuzz(func(t *testing.T, data []byte, sum bool) {
		f := &frameReader{r: bufio.NewReaderSize(bytes.NewReader(data), 256), sum: sum}
		for {
			_, p, err := f.next()
			if err != nil {
				return
			}
			if cap(f.large) > 2*len(data)+2*keepBuffer {
				t.Fatalf("%d bytes made a buffer of %d", len(data), cap(f.large))
			}
			var b raftpb.MessageBatch
			if b.Unmarshal(p) == nil {
				_ = checkBatch(&b, 1, 2)
			}
			var c raftpb.Chunk
			if c.Unmarshal(p) == nil {
				_ = checkChunk(&c, 1, 2, 1)
			}
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{version: version, purpose: forMessages, replica: 3, group: testGroup, address: "db1:33061"}.append(nil))
	f.Add(appendReply(nil, "no"))
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := readBlock(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		if h, err := parseHello(p); err == nil && h.version == version {
			again, err := parseHello(h.append(nil)[2:])
			if err != nil || again != h {
				t.Fatalf("%+v became %+v: %v", h, again, err)
			}
		}
		_, _ = parseReply(p)
	})
}
