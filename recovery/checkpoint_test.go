package recovery

import (
	"os"
	"path/filepath"
	"testing"

	"cohort/internal/binlog/capture"
)

func TestCheckpointRoundTrip(t *testing.T) {
	dir := t.TempDir()
	c, err := loadCheckpoint(dir)
	if err != nil || c != (checkpoint{}) {
		t.Fatalf("no file: %+v, %v", c, err)
	}
	want := checkpoint{ServerUUID: "u", File: "binlog.000007", Pos: 1234}
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := loadCheckpoint(dir); err != nil || got != want {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, checkpointFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadCheckpoint(dir); err == nil {
		t.Fatal("a damaged checkpoint must not pass for none")
	}
}

func TestProgressStaysBeforeOpenDirects(t *testing.T) {
	at := func(pos uint64) capture.StartAt { return capture.StartAt{File: "b.000001", Pos: pos} }
	p := newProgress(at(4))
	step := func(kind capture.Kind, gtid string, pos uint64) {
		p.captured(&capture.Captured{Kind: kind, LocalGTID: gtid, File: "b.000001", Pos: pos})
	}
	step(capture.KindPrepared, "u:1", 100)
	if got := p.place(); got != at(100) {
		t.Fatalf("prepared transactions are not waited for: %v", got)
	}
	step(capture.KindDirect, "u:2", 200)
	step(capture.KindDirect, "u:3", 300)
	step(capture.KindPrepared, "u:4", 400)
	if got := p.place(); got != at(100) {
		t.Fatalf("place %v passes an open direct statement", got)
	}
	p.settled("u:3")
	if got := p.place(); got != at(100) {
		t.Fatalf("place %v passes the older open one", got)
	}
	p.settled("u:2")
	if got := p.place(); got != at(400) {
		t.Fatalf("place %v, all are settled", got)
	}
}
