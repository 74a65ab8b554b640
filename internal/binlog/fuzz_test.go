package binlog

import "testing"

// FuzzParsers feeds every parser. None may panic, and what decodes must encode
// to something that decodes alike.
func FuzzParsers(f *testing.F) {
	g := GTID{UUID: testUUID, GNO: 7, Tag: "tag", LastCommitted: 1, SequenceNumber: 2, TransactionLength: 300, CommitGroupTicket: 4}
	f.Add(AppendGTID(nil, 1, &g))
	f.Add(appendTagged(&g))
	f.Add(AppendFormatDescription(nil, 1, "9.7.4", 0))
	f.Add(AppendPreviousGTIDs(nil, 1, GTIDSet{{UUID: testUUID, Intervals: Intervals{{1, 5}}}, {UUID: testUUID, Tag: "x", Intervals: Intervals{{1, 5}, {7, 7}}}}))
	f.Add(AppendRotate(nil, "file", 4))
	f.Add(AppendHeartbeat(nil, "file", 4))
	f.Add(AppendXID(nil, 1, 2))
	q, err := AppendQuery(nil, 1, 2, &Query{Schema: []byte("d"), SQL: []byte("BEGIN"), StatusVars: []byte{1, 2, 3}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseHeader(b)
		if g, err := DecodeGTID(b); err == nil && g.Tag == "" && g.GNO > 0 {
			ev := AppendGTID(nil, 1, &g)
			if again, err := DecodeGTID(ev[:len(ev)-4]); err != nil || again.String() != g.String() {
				t.Fatalf("%+v became %+v: %v", g, again, err)
			}
		}
		if q, err := ParseQuery(b); err == nil {
			if ev, err := AppendQuery(nil, 1, 1, &q); err == nil {
				if _, err := ParseQuery(ev[:len(ev)-4]); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, _ = ParseFormatDescription(b)
		_, _ = ParsePreviousGTIDs(b)
		_, _, _ = ParseRotate(b)
		_, _ = ParseXID(b)
		_ = VerifyChecksum(b)
		_, _ = Rewrite(nil, b, true)
		_, _ = Rewrite(nil, b, false)
		_ = CheckBody(b)
		for rest := b; len(rest) > 0; {
			var err error
			if _, rest, err = NextEvent(rest); err != nil {
				break
			}
		}
		if s, err := ParseGTIDSet(b); err == nil {
			if again, err := ParseGTIDSet(AppendGTIDSet(nil, s)); err != nil || again.String() != s.String() {
				t.Fatalf("%s became %s: %v", s, again, err)
			}
		}
	})
}
