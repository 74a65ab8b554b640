package binlog_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"cohort/internal/binlog"
	"cohort/internal/mysqldtest"
)

// TestServersOwnEvents decodes every kind of event that a real server writes
// and compares the GTIDs found with what the server says.
func TestServersOwnEvents(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "CREATE DATABASE d", "CREATE TABLE d.t(id INT PRIMARY KEY, b LONGBLOB)",
		"INSERT INTO d.t VALUES (1, REPEAT('x', 100000))",
		"XA START 'x1'", "INSERT INTO d.t VALUES (2, 'y')", "XA END 'x1'", "XA PREPARE 'x1'", "XA COMMIT 'x1'",
		"FLUSH BINARY LOGS",
		"SET gtid_next='AUTOMATIC:local'", "INSERT INTO d.t VALUES (3, 'z')", "INSERT INTO d.t VALUES (4, 'z')",
		"SET gtid_next='aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee:7'", "INSERT INTO d.t VALUES (5, 'z')",
		"SET gtid_next='aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee:some_tag:200'", "INSERT INTO d.t VALUES (6, 'z')",
		"SET gtid_next='AUTOMATIC'", "DROP TABLE d.t", "FLUSH BINARY LOGS")
	var found []string
	var previous binlog.GTIDSet
	types := map[binlog.Type]int{}
	files := s.BinlogFiles(t)
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, ".index") })
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte(binlog.Magic)) {
			t.Fatal("no magic number")
		}
		b = b[binlog.MagicSize:]
		left := int64(0) // of the transaction
		for len(b) > 0 {
			var ev []byte
			if ev, b, err = binlog.NextEvent(b); err != nil {
				t.Fatal(err)
			}
			h, err := binlog.ParseHeader(ev)
			if err != nil {
				t.Fatal(err)
			}
			types[h.Type]++
			plain := ev[:len(ev)-binlog.ChecksumSize]
			// The last file's format description is marked as in use, which its
			// checksum does not count.
			if h.Flags&binlog.FlagInUse == 0 {
				if err := binlog.VerifyChecksum(ev); err != nil {
					t.Fatal(err)
				}
			}
			switch h.Type {
			case binlog.TypeGTID, binlog.TypeGTIDTagged:
				g, err := binlog.DecodeGTID(plain)
				if err != nil {
					t.Fatal(err)
				}
				if left != 0 || g.ImmediateServerVersion < 80000 || g.OriginalCommitTimestamp == 0 {
					t.Errorf("%+v with %d bytes of the transaction before it left", g, left)
				}
				left = int64(g.TransactionLength)
				found = append(found, g.String())
			case binlog.TypePreviousGTIDs:
				if previous, err = binlog.ParsePreviousGTIDs(plain); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(binlog.AppendGTIDSet(nil, previous), plain[binlog.HeaderSize:]) {
					t.Errorf("previous GTIDs %s are encoded otherwise: % x", previous, plain[binlog.HeaderSize:])
				}
				left = 0
				continue
			case binlog.TypeQuery:
				q, err := binlog.ParseQuery(plain)
				if err != nil {
					t.Fatal(err)
				}
				again, err := binlog.AppendQuery(nil, h.Timestamp, h.Flags, &q)
				if err != nil {
					t.Fatal(err)
				}
				want, err := binlog.Rewrite(nil, ev, true)
				if err != nil || !bytes.Equal(again, want) {
					t.Errorf("%q is encoded otherwise: %v", q.SQL, err)
				}
			case binlog.TypeFormatDescription, binlog.TypeRotate, binlog.TypeStop:
				continue
			}
			left -= int64(len(ev))
		}
	}
	if !slices.Contains(found, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee:7") || !slices.Contains(found, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee:some_tag:200") {
		t.Errorf("found %s", found)
	}
	// The last file is empty: what precedes it is everything.
	want := strings.ReplaceAll(s.Value(t, "SELECT @@GLOBAL.gtid_executed"), "\n", "")
	if got := s.Value(t, "SELECT GTID_SUBTRACT(?, ?)", want, previous.String()); got != "" {
		t.Errorf("previous GTIDs %s lack %s", previous, got)
	}
	if got := s.Value(t, "SELECT GTID_SUBTRACT(?, ?)", strings.Join(found, ","), want); got != "" {
		t.Errorf("found %s, which the server does not have", got)
	}
	if got := s.Value(t, "SELECT GTID_SUBTRACT(?, ?)", want, strings.Join(found, ",")); got != "" {
		t.Errorf("did not find %s", got)
	}
	for _, ty := range []binlog.Type{binlog.TypeGTID, binlog.TypeGTIDTagged, binlog.TypeXAPrepare, binlog.TypeXID, binlog.TypeTableMap, binlog.TypeWriteRows} {
		if types[ty] == 0 {
			t.Errorf("no event of type %d", ty)
		}
	}
}
