package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/internal/binlog"
	"cohort/internal/binlog/groupbinlog"
)

const rowsGroup = "11111111-2222-3333-4444-555555555555"

func rowMeta(n uint64) binlog.Meta {
	return binlog.Meta{Kind: binlog.KindTransaction, OriginalCommitTimestamp: 1 + n, OriginalServerVersion: 90704, Timestamp: uint32(n)}
}

// rowBody is a body of about size bytes.
func rowBody(t testing.TB, n uint64, size int) []byte {
	t.Helper()
	b, err := binlog.AppendQuery(nil, uint32(n), 0, &binlog.Query{Schema: []byte("s"), SQL: fmt.Appendf(nil, "%d %s", n, bytes.Repeat([]byte("x"), size))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openStore(t testing.TB, opt groupbinlog.Options) *groupbinlog.Store {
	t.Helper()
	opt.GroupUUID, opt.Logger = rowsGroup, zerolog.Nop()
	s, err := groupbinlog.Open(t.TempDir(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func fill(t testing.TB, s *groupbinlog.Store, upto uint64, size func(uint64) int) {
	t.Helper()
	for n := s.LastN() + 1; n <= upto; n++ {
		b := rowBody(t, n, size(n))
		if err := s.Append(n, n/2, rowMeta(n), bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
	}
}

func fetch(ctx context.Context, target Target, after, to uint64, take func(Row, io.Reader) error) error {
	return FetchRows(ctx, Fetch{Donor: target, Self: "m2", After: after, To: to, Take: take})
}

// Small and large transactions come as they stand in the donor's files, whether its
// shared tail or its files hold them.
func TestFetchRows(t *testing.T) {
	store := openStore(t, groupbinlog.Options{MaxFileSize: 1 << 20, TailBytes: 64 << 10})
	size := func(n uint64) int {
		switch {
		case n%50 == 0:
			return 3 << 20
		case n%7 == 0:
			return 100_000
		}
		return int(n)
	}
	fill(t, store, 200, size)
	_, target, _ := server(t, func(o *Options) { o.Rows = store })
	for _, r := range [][2]uint64{{0, 200}, {49, 50}, {150, 199}} {
		next := r[0] + 1
		err := fetch(t.Context(), target, r[0], r[1], func(row Row, body io.Reader) error {
			b, err := io.ReadAll(body)
			if err != nil {
				return err
			}
			// A file's logical clock can only raise a dependency.
			if row.N != next || row.Meta != rowMeta(row.N) || row.Dep < row.N/2 || row.Size != int64(len(b)) || !bytes.Equal(b, rowBody(t, row.N, size(row.N))) {
				return fmt.Errorf("%+v, %d bytes, where %d must be", row, len(b), next)
			}
			next++
			return nil
		})
		if err != nil || next != r[1]+1 {
			t.Fatalf("%v: %v, up to %d", r, err, next-1)
		}
	}
}

func TestDonorRefuses(t *testing.T) {
	store := openStore(t, groupbinlog.Options{MaxFileSize: 1000})
	for n := uint64(10); n <= 30; n += 10 {
		fill(t, store, n, func(uint64) int { return 400 })
		if _, err := store.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Sync(); err != nil {
		t.Fatal(err)
	}
	if n, err := store.Purge(15); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	first := store.FirstN()
	_, target, _ := server(t, func(o *Options) { o.Rows = store })
	take := func(Row, io.Reader) error { return errors.New("taken") }
	refused := func(after, to uint64) *RefusedError {
		t.Helper()
		e, ok := errors.AsType[*RefusedError](fetch(t.Context(), target, after, to, take))
		if !ok {
			t.Fatal("not refused")
		}
		return e
	}
	if e := refused(first-2, 30); !e.Purged || e.First != first || e.Last != 30 {
		t.Errorf("%+v", e)
	}
	if e := refused(first, 31); e.Purged || e.Last != 30 {
		t.Errorf("%+v", e)
	}
	store.Limit(20) // it is fetching itself
	if e := refused(first, 21); e.Purged || e.Last != 20 {
		t.Errorf("%+v", e)
	}
	_, none, _ := server(t, nil)
	if e, ok := errors.AsType[*RefusedError](fetch(t.Context(), none, 0, 1, take)); !ok || e.Purged {
		t.Errorf("%+v", e)
	}
	wrong := target
	wrong.Token = NewToken()
	if err := fetch(t.Context(), wrong, 0, 1, take); !errors.Is(err, ErrAuth) {
		t.Error(err)
	}
}

// The token of an earlier process is good for rows alone.
func TestEarlierToken(t *testing.T) {
	store := openStore(t, groupbinlog.Options{})
	fill(t, store, 3, func(uint64) int { return 10 })
	earlier := NewToken()
	_, target, _ := server(t, func(o *Options) { o.Rows, o.Earlier = store, []string{NewToken(), earlier} })
	target.Token = earlier
	rows := 0
	err := fetch(t.Context(), target, 0, 3, func(_ Row, body io.Reader) error {
		rows++
		_, err := io.Copy(io.Discard, body)
		return err
	})
	if err != nil || rows != 3 {
		t.Error(err, rows)
	}
	sub := NewSubscriber(SubscriberOptions{Self: "self"})
	if c, err := sub.connect(t.Context(), target); !errors.Is(err, ErrAuth) {
		t.Error(err)
		if err == nil {
			c.Close()
		}
	}
}

// What the receiver itself cannot do comes back as its own failure.
func TestTakeError(t *testing.T) {
	store := openStore(t, groupbinlog.Options{})
	fill(t, store, 3, func(uint64) int { return 10 })
	_, target, _ := server(t, func(o *Options) { o.Rows = store })
	full := errors.New("disk full")
	err := fetch(t.Context(), target, 0, 3, func(r Row, b io.Reader) error {
		if r.N == 2 {
			return full
		}
		_, err := io.Copy(io.Discard, b)
		return err
	})
	if _, own := errors.AsType[*TakeError](err); !own || !errors.Is(err, full) {
		t.Fatal(err)
	}
	if err := fetch(t.Context(), target, 0, 3, func(Row, io.Reader) error { return nil }); !errors.Is(err, errBodyLeft) {
		t.Fatal(err)
	}
}

// A receiver that stands still holds the donor up, and what is on its way is
// bounded: neither side keeps a body of 150 MB.
func TestRowsBackPressure(t *testing.T) {
	const size = 150_000_000
	store := openStore(t, groupbinlog.Options{})
	event := rowBody(t, 1, 1<<20)
	count := size/len(event) + 1
	body := io.MultiReader(repeat(event, count)...)
	if err := store.Append(1, 0, rowMeta(1), body, int64(count*len(event))); err != nil {
		t.Fatal(err)
	}
	_, target, _ := server(t, func(o *Options) { o.Rows = store })
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak, got uint64
	err := fetch(t.Context(), target, 0, 1, func(_ Row, b io.Reader) error {
		buf := make([]byte, 1<<20)
		for {
			n, err := b.Read(buf)
			if got += uint64(n); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			if got%(1<<24) < uint64(n) {
				runtime.GC()
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapAlloc)
			}
		}
	})
	if err != nil || got != uint64(count*len(event)) {
		t.Fatal(got, err)
	}
	if peak > before.HeapAlloc+(16<<20) {
		t.Errorf("heap grew from %d to %d bytes", before.HeapAlloc, peak)
	}
}

func repeat(b []byte, n int) []io.Reader {
	rs := make([]io.Reader, n)
	for i := range rs {
		rs[i] = bytes.NewReader(b)
	}
	return rs
}

// A fetch ends with its context, on both sides.
func TestFetchRowsIsCancelled(t *testing.T) {
	store := openStore(t, groupbinlog.Options{})
	fill(t, store, 50, func(uint64) int { return 1 << 20 })
	s, target, _ := server(t, func(o *Options) { o.Rows = store })
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	err := fetch(ctx, target, 0, 50, func(r Row, b io.Reader) error {
		if r.N == 3 {
			cancel(enough)
			<-ctx.Done()
		}
		_, err := io.Copy(io.Discard, b)
		return err
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	eventually(t, "the donor to notice", func() bool { return len(s.donations) == 0 })
}

// A bit that changes on the way ends the connection, and nothing of the frame is
// taken.
func TestRowsChecksum(t *testing.T) {
	store := openStore(t, groupbinlog.Options{})
	fill(t, store, 20, func(uint64) int { return 1000 })
	_, target, _ := server(t, func(o *Options) { o.Rows = store })
	var spoil atomic.Int64
	spoil.Store(8000)
	good := uint64(0)
	err := FetchRows(t.Context(), Fetch{Donor: target, Self: "m2", After: 0, To: 20, Take: func(r Row, b io.Reader) error {
		got, err := io.ReadAll(b)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, rowBody(t, r.N, 1000)) {
			t.Errorf("transaction %d was taken damaged", r.N)
		}
		good = r.N
		return nil
	}, SubscriberOptions: SubscriberOptions{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &spoiled{Conn: c, at: &spoil}, err
	}}})
	if !errors.Is(err, ErrFrame) || good < 5 || good > 10 {
		t.Fatal(good, err)
	}
}

// spoiled changes one bit of what is read.
type spoiled struct {
	net.Conn
	at *atomic.Int64
}

func (s *spoiled) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	left := s.at.Add(int64(-n))
	if left <= 0 && left+int64(n) > 0 {
		p[int64(n)+left-1] ^= 4
	}
	return n, err
}

// A donor that ends in the middle of a body is no end of the body.
func TestDonorDiesInABody(t *testing.T) {
	store := openStore(t, groupbinlog.Options{})
	fill(t, store, 1, func(uint64) int { return 20 << 20 })
	_, target, stop := server(t, func(o *Options) { o.Rows = store })
	err := fetch(t.Context(), target, 0, 1, func(_ Row, b io.Reader) error {
		if _, err := io.CopyN(io.Discard, b, 1<<20); err != nil {
			return err
		}
		stop()
		n, err := io.Copy(io.Discard, b)
		if err == nil {
			t.Errorf("the body ended after %d more bytes", n)
		}
		return err
	})
	if _, own := errors.AsType[*TakeError](err); err == nil || own {
		t.Fatal(err)
	}
}

// FuzzRows reads anything as what a donor sends.
func FuzzRows(f *testing.F) {
	var good []byte
	row := Row{N: 1, Meta: rowMeta(1)}
	body := rowBody(f, 1, 10)
	row.Size = int64(len(body))
	good = appendSummed(good, frameRowsTxn, row.append)
	good = appendSummed(good, frameRowsData, func(b []byte) []byte { return append(b, body...) })
	good = appendSummed(good, frameRowsEnd, nil)
	f.Add(good)
	f.Add(appendSummed(nil, frameRowsRefused, (&RefusedError{Purged: true, First: 7, Last: 9, Text: "x"}).append))
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, in []byte) {
		client, donor := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.CopyN(io.Discard, donor, 4) // the request's length: enough to let it go on
			go io.Copy(io.Discard, donor)
			donor.Write(in)
			donor.Close()
		}()
		c := newConn(client, patience)
		f := Fetch{After: 0, To: 1, Take: func(r Row, b io.Reader) error {
			n, err := io.Copy(io.Discard, b)
			if err == nil && n != r.Size {
				t.Errorf("a body of %d bytes, not %d", n, r.Size)
			}
			return err
		}}
		err := f.receive(c)
		client.Close()
		<-done
		if err == nil && !bytes.HasPrefix(in, good[:4]) && len(in) < 20 {
			t.Error("nothing was enough")
		}
	})
}

// FuzzRowsRequest has a donor read anything.
func FuzzRowsRequest(f *testing.F) {
	f.Add(appendSummed(nil, frameRowsRequest, rowsRequest{0, 2}.append))
	f.Add(appendSummed(nil, frameRowsRequest, rowsRequest{5, 2}.append))
	f.Add([]byte{0, 0, 0, 9, 10})
	store := openStore(f, groupbinlog.Options{})
	fill(f, store, 2, func(uint64) int { return 10 })
	f.Fuzz(func(t *testing.T, in []byte) {
		s := &Server{o: Options{Rows: store, RowsTimeout: patience, Logger: zerolog.Nop()}, donations: make(chan struct{}, 1)}
		client, donor := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.donate(context.Background(), newConn(donor, patience), "m2")
			donor.Close()
		}()
		client.SetDeadline(time.Now().Add(patience))
		go func() {
			client.Write(in)
			client.Close()
		}()
		io.Copy(io.Discard, client)
		<-done
	})
}
