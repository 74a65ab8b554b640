package groupbinlog

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Readers see what lies beyond the limit when it is raised, and not before.
func TestLimit(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	add(t, s, 1, 0, 10)
	s.Limit(1)
	add(t, s, 2, 0, 10)
	add(t, s, 3, 0, 10)
	readTo(t, s, 0, 1, noDep, constSize(10))
	r, err := s.NewReader(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, ok, err := r.TryNext(); ok || err != nil {
		t.Fatalf("a hidden transaction was read: %v %v", ok, err)
	}
	if first, last := s.Range(); first != 1 || last != 1 || s.LastN() != 3 {
		t.Fatalf("range %d-%d, last %d", first, last, s.LastN())
	}
	got := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		_, err := r.Next(ctx)
		got <- err
	}()
	s.Limit(2)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := r.TryNext(); ok {
		t.Fatal("transaction 3 is hidden still")
	}
	s.Limit(NoLimit)
	readTo(t, s, 0, 3, noDep, constSize(10))
}

// What a pinned reader has still to return is not purged.
func TestPinnedReader(t *testing.T) {
	opt := testOptions()
	opt.MaxFileSize = 1000
	s := open(t, t.TempDir(), opt)
	for n := uint64(1); n <= 30; n++ {
		add(t, s, n, 0, 500)
		if n%5 == 0 {
			mustSync(t, s)
		}
	}
	mustSync(t, s)
	mustSync(t, s)
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	r.Pin()
	if n, err := s.Purge(30); n != 0 || err != nil {
		t.Fatalf("%d files purged under a pinned reader, %v", n, err)
	}
	for range 10 {
		if _, err := r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Purge(30); n == 0 || err != nil || s.FirstN() > 10 {
		t.Fatalf("%d files purged, first %d, %v", n, s.FirstN(), err)
	}
	for n := uint64(11); n <= 30; n++ {
		got, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		check(t, got, 0, 500)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge(30); err != nil || s.FirstN() <= 11 {
		t.Fatalf("first %d, %v", s.FirstN(), err)
	}
	if _, err := s.NewReader(0); !errors.Is(err, ErrPurged) {
		t.Fatal(err)
	}
}
