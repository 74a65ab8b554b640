package state

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cohort/certify"
	"cohort/internal/binlog"
)

var rewrite = flag.Bool("rewrite", false, "write what came out into the transcripts")

// A transcript is a file of steps: a line with a directive, a line ----, what it
// printed, an empty line. Lines with # before a directive are comments.
//
// Directives: bootstrap, join, state, weight, primary, txn, direct, fragment, abort,
// watermark, admit, evict, rules (each one entry), view, replicas, seqs, outcomes, cert, encode. Items
// take name=value arguments, see transcript.item.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			tr := &transcript{t: t, s: New()}
			got := tr.play(string(b))
			if *rewrite {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(b) {
				t.Errorf("%s differs (run with -rewrite and look at the diff):\n%s", f, diff(string(b), got))
			}
		})
	}
}

func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n  want %q\n  got  %q", i+1, a, b)
		}
	}
	return ""
}

type transcript struct {
	t     *testing.T
	s     *State
	index uint64
	out   strings.Builder
}

func (tr *transcript) play(in string) string {
	var file []string
	for _, block := range strings.Split(in, "\n\n") {
		var comments string
		for _, line := range strings.Split(strings.TrimSpace(block), "\n") {
			if strings.HasPrefix(line, "#") {
				comments += line + "\n"
				continue
			}
			if line == "" {
				break
			}
			tr.out.Reset()
			tr.step(strings.Fields(line))
			// Every step must survive a restart.
			again, err := Decode(tr.s.Encode(nil))
			if err != nil {
				tr.t.Fatalf("%s: %v", line, err)
			}
			tr.s = again
			file = append(file, comments+line+"\n----\n"+tr.out.String())
			break // what follows is what it printed
		}
	}
	return strings.Join(file, "\n")
}

func (tr *transcript) printf(format string, args ...any) { fmt.Fprintf(&tr.out, format+"\n", args...) }

type args map[string]string

func (a args) num(name string) uint64 {
	v := a[name]
	if v == "" {
		return 0
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s=%s: %v", name, v, err))
	}
	return n
}

func (a args) list(name string) (out []uint64) {
	for _, f := range strings.FieldsFunc(a[name], func(r rune) bool { return r == ',' }) {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			panic(fmt.Sprintf("%s=%s: %v", name, f, err))
		}
		out = append(out, n)
	}
	return out
}

// replica is the replica of a join: the member's id in groups begun with several.
func (a args) replica() uint64 {
	if a.has("replica") {
		return a.num("replica")
	}
	return a.num("m")
}

func (a args) replicas() uint64 {
	if a.has("replicas") {
		return a.num("replicas")
	}
	return MaxMembers
}

func (a args) has(name string) bool { _, ok := a[name]; return ok }

func (tr *transcript) step(words []string) {
	a := args{}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		a[name] = value
	}
	switch words[0] {
	case "view":
		v := tr.s.View()
		tr.printf("view %d founded=%t primary=%d epoch=%d last=%d horizon=%d", v.Seq, v.Founded, v.Primary, v.Epoch, v.LastN, v.Horizon)
		if v.PrimarySince > 0 {
			tr.printf("  primary since %d", v.PrimarySince)
		}
		if v.Base != "" {
			tr.printf("  base %s", v.Base)
		}
		for _, m := range v.Members {
			tr.printf("  member %d inc=%d %s uuid=%s applied=%d stable=%d low=%d", m.ID, m.Incarnation, m.State, m.Info.UUID, m.Applied, m.Stable, m.Low)
		}
	case "replicas":
		for _, m := range tr.s.members {
			tr.printf("member %d %s replica=%d voter=%t", m.ID, m.State, m.Replica, m.Voter)
		}
		tr.printf("last given %d, unclaimed %v", tr.s.replicas, tr.s.unclaimed)
	case "seqs":
		for _, m := range tr.s.members {
			tr.printf("member %d inc=%d seq=%d stream=%v", m.ID, m.Incarnation, m.Seq, m.stream != nil)
			for _, f := range m.fenced {
				tr.printf("  fenced inc=%d seq=%d", f.incarnation, f.seq)
			}
		}
	case "outcomes":
		for _, o := range tr.s.outcomes.all() {
			tr.printf("%s direct=%t committed=%t n=%d errno=%d %s", o.Key, o.Direct, o.Committed, o.N, o.Errno, o.Reason)
		}
		for _, xid := range tr.s.forced.xids() {
			f := tr.s.forced.byXID[xid]
			tr.printf("%s forced, may be proposed by inc=%d upto=%d", xid, f.life, f.upto)
		}
	default:
		tr.index++
		res, err := tr.s.Apply(tr.index, Entry(tr.item(words[0], a)), tr)
		if err != nil {
			tr.printf("error: %v", err)
			return
		}
		if res >= FirstRefusal && (words[0] == "join" || words[0] == "admit") {
			tr.printf("result: %s", map[uint64]string{RefusedDuplicateUUID: "duplicate uuid", RefusedDuplicateServerID: "duplicate server_id",
				RefusedDuplicateAddress: "duplicate address", RefusedFull: "group is full", RefusedPresent: "still present",
				RefusedNotAdmitted: "not admitted"}[res])
			return
		}
		tr.printf("result %d", res)
	}
}

func (tr *transcript) item(kind string, a args) []byte {
	switch kind {
	case "bootstrap":
		return (&Bootstrap{GroupName: "g", Lineage: 42, Rules: max(1, a.num("rules")), Replicas: a.replicas(), Primary: a.num("primary"), StartN: a.num("start"), Base: a["base"]}).AppendItem(nil)
	case "join":
		uuid := fmt.Sprintf("u%d", a.num("m"))
		if a.has("uuid") {
			uuid = a["uuid"]
		}
		return (&Join{Member: a.num("m"), Replica: a.replica(), Nonce: a.num("nonce"), Info: MemberInfo{UUID: uuid, ServerVersion: a.num("version"), Weight: a.num("weight"), ServerID: a.num("server")}}).AppendItem(nil)
	case "state":
		states := map[string]MemberState{"offline": StateOffline, "recovering": StateRecovering, "online": StateOnline, "error": StateError}
		return (&SetState{Member: a.num("m"), Incarnation: a.num("inc"), State: states[a["to"]]}).AppendItem(nil)
	case "weight":
		return (&Weight{Member: a.num("m"), Incarnation: a.num("inc"), Weight: a.num("to")}).AppendItem(nil)
	case "primary":
		return (&Primary{Member: a.num("m"), Epoch: a.num("epoch")}).AppendItem(nil)
	case "abort":
		return (&Abort{XIDs: strings.Split(a["xids"], ","), Incarnation: a.num("inc")}).AppendItem(nil)
	case "watermark":
		return (&Watermark{Member: a.num("m"), Incarnation: a.num("inc"), Applied: a.num("applied"), Stable: a.num("stable"), Low: a.num("low")}).AppendItem(nil)
	case "admit":
		uuid := fmt.Sprintf("u%d", a.num("m"))
		if a.has("uuid") {
			uuid = a["uuid"]
		}
		return (&Admit{Member: a.num("m"), Nonce: a.num("nonce"), UUID: uuid, ServerID: a.num("server"), Address: a["at"]}).AppendItem(nil)
	case "evict":
		return (&Evict{Member: a.num("m"), Replica: a.num("replica"), Incarnation: a.num("inc")}).AppendItem(nil)
	case "rules":
		return (&Rules{Version: a.num("v")}).AppendItem(nil)
	case "fragment":
		data := []byte(a["data"])
		return (&Fragment{Member: a.num("m"), Incarnation: a.num("inc"), Seq: a.num("seq"), Stream: a.num("stream"),
			Offset: int64(a.num("off")), Data: data, Len: int64(len(data))}).AppendItem(nil)
	case "txn", "direct":
		x := &Txn{Direct: kind == "direct", Member: a.num("m"), Incarnation: a.num("inc"), Seq: a.num("seq"), Epoch: 1,
			XID: a["xid"], LocalGTID: a["gtid"],
			Snapshot: certify.Snapshot{Low: a.num("low"), Extra: a.list("extra")},
			Writes:   a.list("w"), Refs: a.list("r"), Tables: a.list("t"), Refuse: uint16(a.num("refuse")),
			Serial: a.has("serial"), CommitOrder: a.has("order"), Wide: a.has("wide"),
			Meta:   binlog.Meta{Kind: binlog.KindTransaction, Timestamp: 1},
			Stream: a.num("stream"), Body: []byte(a["body"])}
		if a.has("epoch") {
			x.Epoch = a.num("epoch")
		}
		x.BodyLen = int64(len(x.Body)) + int64(a.num("len"))
		return x.AppendItem(nil)
	default:
		tr.t.Fatalf("unknown directive %q", kind)
		return nil
	}
}

// The transcript is its own Sink.

func (tr *transcript) Spool(id StreamID, off int64, data []byte) error {
	tr.printf("spool %v at %d: %q", id, off, data)
	return nil
}

func (tr *transcript) DropSpool(id StreamID) error {
	tr.printf("drop spool %v", id)
	return nil
}

func (tr *transcript) Append(n, dep uint64, _ binlog.Meta, body []byte, stream *StreamID, size int64) error {
	if stream != nil {
		tr.printf("append %d after %d, spooled %v, %d bytes", n, dep, *stream, size)
	} else {
		tr.printf("append %d after %d: %q", n, dep, body)
	}
	return nil
}

func (tr *transcript) StartAt(n uint64) error {
	tr.printf("group binlog starts after %d", n)
	return nil
}

func (tr *transcript) Ignored(_ uint64, kind Kind, err error) { tr.printf("ignored %s: %v", kind, err) }

func (tr *transcript) Decided(d Decision) {
	s := fmt.Sprintf("%s m=%d inc=%d", d.Kind, d.Origin, d.Incarnation)
	switch d.Kind {
	case KindTxn, KindDirect, KindAbort:
		s += " " + d.XID + d.LocalGTID
		if d.Committed {
			s += fmt.Sprintf(" commits as %d after %d", d.N, d.Dep)
		} else {
			s += fmt.Sprintf(" aborts %d %s", d.Errno, d.Reason)
		}
		if d.Repeated {
			s += " (repeated)"
		}
	case KindState, KindJoin:
		s += fmt.Sprintf(" %s at %d", d.State, d.N)
	case KindWatermark:
		s += fmt.Sprintf(" applied=%d stable=%d", d.N, d.Stable)
	default:
		s += fmt.Sprintf(" epoch=%d at %d", d.Epoch, d.N)
	}
	tr.printf("%s", s)
}
