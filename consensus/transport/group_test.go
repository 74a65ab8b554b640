package transport

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/rs/zerolog"

	"cohort/internal/grouptls"
	"cohort/internal/grouptls/tlstest"
	"cohort/internal/mysqldtest"
	"cohort/internal/skip"
)

// counter is a state machine that counts bytes; its snapshots have a body, so
// that they take several chunks.
type counter struct{ n uint64 }

const snapshotBody = 5 << 20

func (c *counter) Update(e sm.Entry) (sm.Result, error) {
	c.n += uint64(len(e.Cmd))
	return sm.Result{Value: c.n}, nil
}

func (c *counter) Lookup(any) (any, error) { return c.n, nil }

func (c *counter) SaveSnapshot(w io.Writer, _ sm.ISnapshotFileCollection, _ <-chan struct{}) error {
	b := make([]byte, snapshotBody)
	binary.BigEndian.PutUint64(b, c.n)
	_, err := w.Write(b)
	return err
}

func (c *counter) RecoverFromSnapshot(r io.Reader, _ []sm.SnapshotFile, _ <-chan struct{}) error {
	b := make([]byte, snapshotBody)
	_, err := io.ReadFull(r, b)
	c.n = binary.BigEndian.Uint64(b)
	return err
}

func (c *counter) Close() error { return nil }

// host is a NodeHost with one replica. The others reach it through its relay.
type host struct {
	t              testing.TB
	id             uint64
	dir            string
	listen         string
	relay          *relay
	log            *logbook
	tls            *grouptls.Config
	builtin        bool
	snapshots      uint64
	members        map[uint64]dragonboat.Target
	nh             *dragonboat.NodeHost
	session        *client.Session
	electionTicks  uint64
	heartbeatTicks uint64
}

// newGroup makes a group of 3, with an address of each kind.
func newGroup(t testing.TB, tweak func(*host)) []*host {
	t.Helper()
	members := make(map[uint64]dragonboat.Target)
	var hosts []*host
	for id := uint64(1); id <= 3; id++ {
		ln, err := net.Listen("tcp", net.JoinHostPort(mysqldtest.Loopback(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		h := &host{t: t, id: id, dir: filepath.Join(t.TempDir(), fmt.Sprint(id)), listen: ln.Addr().String(), members: members,
			electionTicks: 50, heartbeatTicks: 5}
		ln.Close()
		h.relay = newRelay(t, h.listen)
		members[id] = h.relay.addr()
		if tweak != nil {
			tweak(h)
		}
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		h.start()
	}
	t.Cleanup(func() {
		for _, h := range hosts {
			h.stop()
		}
	})
	return hosts
}

func (h *host) start() {
	h.t.Helper()
	if h.log == nil {
		h.log = &logbook{} // not the test's own, which NodeHost's goroutines may outlive
		h.t.Cleanup(func() {
			if h.t.Failed() {
				h.t.Logf("replica %d:\n%s", h.id, h.log.text())
			}
		})
	}
	nhc := config.NodeHostConfig{DeploymentID: 77, NodeHostDir: h.dir, RTTMillisecond: 10, RaftAddress: h.members[h.id], ListenAddress: h.listen}
	if !h.builtin {
		nhc.Expert.TransportFactory = NewFactory(Options{Group: testGroup, Shard: 1, Replica: h.id, TLS: h.tls,
			Address: func(id uint64) (string, bool) { a, ok := h.members[id]; return a, ok }, Logger: zerolog.New(h.log).Level(zerolog.WarnLevel)})
	}
	nhc.Expert.LogDB = config.GetTinyMemLogDBConfig()
	nhc.Expert.LogDB.Shards = 1
	nhc.Expert.Engine = config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1, SnapshotShards: 1, CloseShards: 1}
	nh, err := dragonboat.NewNodeHost(nhc)
	if err != nil {
		h.t.Fatal(err)
	}
	h.nh, h.session = nh, nh.GetNoOPSession(1)
	if err := nh.StartReplica(h.members, false, func(uint64, uint64) sm.IStateMachine { return &counter{} }, config.Config{
		ReplicaID: h.id, ShardID: 1, CheckQuorum: true, PreVote: true, ElectionRTT: h.electionTicks, HeartbeatRTT: h.heartbeatTicks,
		SnapshotEntries: h.snapshots, CompactionOverhead: 1}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) stop() {
	if h.nh != nil {
		h.nh.Close()
		h.nh = nil
	}
}

// propose adds n until it is accepted.
func (h *host) propose(n int) {
	h.t.Helper()
	eventually(h.t, "a proposal", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := h.nh.SyncPropose(ctx, h.session, make([]byte, n))
		return err == nil
	})
}

// reads waits until a linearizable read returns n or more.
func (h *host) reads(n uint64, patience time.Duration) {
	h.t.Helper()
	eventually(h.t, "a read", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		v, err := h.nh.SyncRead(ctx, 1, nil)
		return err == nil && v.(uint64) >= n
	})
}

func TestGroup(t *testing.T) {
	ca := tlstest.NewCA(t)
	for _, mode := range []grouptls.Mode{grouptls.Disabled, grouptls.Required, grouptls.VerifyIdentity} {
		t.Run(string(mode), func(t *testing.T) {
			hosts := newGroup(t, func(h *host) {
				h.snapshots = 20
				o := grouptls.Options{Mode: mode}
				if mode == grouptls.VerifyIdentity {
					o.CA = ca.File
					o.Cert, o.Key = ca.Issue(t, time.Now().Add(time.Hour), "127.0.0.1")
				}
				var err error
				if h.tls, err = grouptls.Load(o); err != nil {
					t.Fatal(err)
				}
			})
			for _, h := range hosts {
				h.propose(100)
			}
			for _, h := range hosts {
				h.reads(300, 2*time.Second)
			}
			// A member that misses what the others have compacted gets a snapshot.
			hosts[2].stop()
			for range 60 {
				hosts[0].propose(100)
			}
			hosts[2].start()
			for _, h := range hosts {
				h.reads(6300, 2*time.Second)
			}
		})
	}
}

// Addresses of both kinds, and a name, work in one group.
func TestMixedAddresses(t *testing.T) {
	members := map[uint64]dragonboat.Target{}
	var hosts []*host
	for i, at := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0"} {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			skip.For(t, "this machine has no ", at, ": ", err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		name, _, _ := net.SplitHostPort(at)
		ln.Close()
		id := uint64(i + 1)
		members[id] = net.JoinHostPort(name, port)
		hosts = append(hosts, &host{t: t, id: id, dir: filepath.Join(t.TempDir(), fmt.Sprint(id)), members: members, electionTicks: 50, heartbeatTicks: 5})
	}
	for _, h := range hosts {
		h.start()
		defer h.stop()
	}
	for _, h := range hosts {
		h.propose(1)
	}
	for _, h := range hosts {
		h.reads(3, 2*time.Second)
	}
}

// A member that was cut off, either way, takes part again.
func TestGroupSurvivesCuts(t *testing.T) {
	hosts := newGroup(t, nil)
	sum := uint64(0)
	for i, h := range hosts {
		for _, hole := range []bool{true, false} {
			hosts[(i+1)%3].propose(10)
			h.relay.set(hole, !hole)
			hosts[(i+1)%3].propose(10)
			hosts[(i+2)%3].propose(10)
			h.relay.set(false, false)
			h.propose(10)
			sum += 40
			h.reads(sum, 2*time.Second)
		}
	}
}

// BenchmarkReturn measures how long a member that was away cannot read: after a
// restart, and after a cut of both kinds, of 3 s each.
func BenchmarkReturn(b *testing.B) {
	for _, builtin := range []bool{true, false} {
		for _, what := range []string{"restart", "hole", "cut"} {
			b.Run(fmt.Sprintf("builtin=%v/%s", builtin, what), func(b *testing.B) {
				hosts := newGroup(b, func(h *host) { h.builtin = builtin })
				for _, h := range hosts {
					h.propose(1)
				}
				// Away is one that does not lead.
				leader, _, _, err := hosts[0].nh.GetLeaderID(1)
				if err != nil {
					b.Fatal(err)
				}
				away := hosts[leader%3]
				var total time.Duration
				for range b.N {
					switch what {
					case "restart":
						away.stop()
					default:
						away.relay.set(what == "hole", what == "cut")
					}
					time.Sleep(3 * time.Second)
					if what == "restart" {
						away.start()
					} else {
						away.relay.set(false, false)
					}
					began := time.Now()
					away.reads(3, 50*time.Millisecond)
					total += time.Since(began)
					time.Sleep(time.Second)
				}
				b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "ms/return")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkRoundTrip has a group that only sends heartbeats (its CPU counts), reads (a message each way to two members, without a
// disk) and proposals of 200 bytes and 100 kB, each made at a follower, by one
// and by 32.
func BenchmarkRoundTrip(b *testing.B) {
	required, err := grouptls.Load(grouptls.Options{Mode: grouptls.Required})
	if err != nil {
		b.Fatal(err)
	}
	for _, kind := range []string{"builtin", "plain", "tls"} {
		hosts := newGroup(b, func(h *host) {
			h.builtin = kind == "builtin"
			if kind == "tls" {
				h.tls = required
			}
			if dir, err := os.MkdirTemp("/dev/shm", "transport"); err == nil {
				b.Cleanup(func() { os.RemoveAll(dir) })
				h.dir = dir
			}
			h.members[h.id] = h.listen // not through the relay
		})
		for _, h := range hosts {
			h.propose(1)
		}
		leader, _, _, err := hosts[0].nh.GetLeaderID(1)
		if err != nil {
			b.Fatal(err)
		}
		h := hosts[leader%3]
		cmd := make([]byte, 100<<10)
		for _, x := range []struct {
			name string
			f    func(context.Context) error
		}{
			{"idle10ms", func(context.Context) error { time.Sleep(10 * time.Millisecond); return nil }},
			{"read", func(ctx context.Context) error { _, err := h.nh.SyncRead(ctx, 1, nil); return err }},
			{"200B", func(ctx context.Context) error { _, err := h.nh.SyncPropose(ctx, h.session, cmd[:200]); return err }},
			{"100kB", func(ctx context.Context) error { _, err := h.nh.SyncPropose(ctx, h.session, cmd); return err }},
		} {
			for _, parallel := range []int{1, 32} {
				b.Run(fmt.Sprintf("%s/%s/%d", kind, x.name, parallel), func(b *testing.B) {
					b.SetParallelism(parallel)
					cpu := cpuTime()
					run := func(next func() bool) {
						for next() {
							ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
							_ = x.f(ctx) // under overload some are refused
							cancel()
						}
					}
					if parallel == 1 {
						run(b.Loop)
					} else {
						b.RunParallel(func(pb *testing.PB) { run(pb.Next) })
					}
					b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
				})
			}
		}
		for _, h := range hosts {
			h.stop()
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
