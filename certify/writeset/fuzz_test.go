package writeset

import (
	"context"
	"encoding/binary"
	"testing"

	"cohort/internal/binlog"
)

// tableMapBytes is a Table_map event's body for (INT, VARCHAR(20), ENUM, DECIMAL(10,2)).
func tableMapBytes() []byte {
	b := []byte{9, 0, 0, 0, 0, 0, 1, 0, 1, 'd', 0, 1, 't', 0, 4, typeLong, typeVarchar, typeString, typeNewDecimal}
	b = append(b, 6, 80, 0, typeEnum, 1, 10, 2)
	b = append(b, 0x0e)
	return append(b, 1, 1, 0x00, optionalDefaultCharset, 2, 0xff&45, 0)[:len(b)+3]
}

func rowBytes(images int) []byte {
	b := []byte{9, 0, 0, 0, 0, 0, 1, 0, 2, 0, 4}
	for range images {
		b = append(b, 0x0f)
	}
	for i := range images {
		b = append(b, 0, byte(i), 1, 0, 0, 3, 'a', 'b', 'c', 2, 0x80, 0, 0, 1, 5)
	}
	return b
}

// known returns an Extractor that knows the table of tableMapBytes.
func known(t testing.TB) *Extractor {
	coll := &collation{id: 255, name: "utf8mb4_0900_ai_ci", charset: "utf8mb4", maxLen: 4}
	coll.resolve()
	d := &definition{
		schema: "d", table: "t", engine: "InnoDB",
		columns: []column{
			{name: "id", dataType: "int"},
			{name: "v", dataType: "varchar", collation: coll, octets: 80, nullable: true},
			{name: "e", dataType: "enum", collation: coll, octets: 4, nullable: true},
			{name: "n", dataType: "decimal", precision: 10, scale: 2, nullable: true},
		},
		indexes: []index{{name: "PRIMARY", parts: []part{{col: 0}}}, {name: "u", parts: []part{{col: 1, prefix: 2}, {col: 3}}}},
	}
	e := &Extractor{}
	e.Invalidate()
	body := tableMapBytes()
	m, err := parseTableMap(body)
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.newPlan(context.Background(), &m, body[6:], d)
	if err != nil {
		t.Fatal(err)
	}
	if p.coarse || len(p.keys) != 2 {
		t.Fatalf("plan %+v", p)
	}
	e.byName["d\x00t"], e.byID[9] = p, p
	e.Begin()
	if err := e.Table(context.Background(), body); err != nil {
		t.Fatal(err)
	}
	return e
}

// FuzzTableMap: no bytes make the parser panic or allocate without bound.
func FuzzTableMap(f *testing.F) {
	f.Add(tableMapBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseTableMap(b)
		if err != nil {
			return
		}
		for i := range m.types {
			if w, ok := widthOf(m.types[i], m.meta[i]); ok && (w.fixed < 0 || w.fixed > 1024 || w.prefix > 4) {
				t.Errorf("type %d meta %#x: %+v", m.types[i], m.meta[i], w)
			}
		}
		(&definition{columns: make([]column, len(m.types))}).matches(&m)
	})
}

// FuzzRows: no row event of a known table makes the extractor panic.
func FuzzRows(f *testing.F) {
	f.Add(byte(30), rowBytes(1))
	f.Add(byte(31), rowBytes(2))
	f.Add(byte(32), rowBytes(1))
	e := known(f)
	f.Fuzz(func(t *testing.T, typ byte, b []byte) {
		if len(b) > 6 {
			binary.LittleEndian.PutUint32(b, 9)
			b[4], b[5] = 0, 0
		}
		_, _ = e.Rows(binlog.Type(30+typ%3), b)
		e.out.Writes, e.out.Refs = nil, nil
	})
}

func TestRowsByHand(t *testing.T) {
	e := known(t)
	if _, err := e.Rows(binlog.TypeUpdateRows, rowBytes(2)); err != nil {
		t.Fatal(err)
	}
	x := e.Finish()
	// The primary key changes from 256 to 257, the unique key stays.
	if len(x.Writes) != 2 || len(x.Refs) != 0 || len(x.Tables) != 1 || x.Names[0] != "d\x00t" {
		t.Errorf("%+v", x)
	}
	for i := range rowBytes(1) {
		if i > 10 {
			if _, err := known(t).Rows(binlog.TypeWriteRows, rowBytes(1)[:i]); err == nil && i != 12 {
				t.Errorf("cut at %d: no error", i)
			}
		}
	}
}

// TestNormalForms are values that mysqld calls equal though their bytes differ.
func TestNormalForms(t *testing.T) {
	for _, c := range []struct {
		f    form
		a, b []byte
	}{
		{formDouble, []byte{0, 0, 0, 0, 0, 0, 0, 0}, []byte{0, 0, 0, 0, 0, 0, 0, 0x80}},
		{formFloat, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0x80}},
		{formDecimal, []byte{0x80, 0, 0}, []byte{0x7f, 0xff, 0xff}},
	} {
		if a, b := appendFixed(nil, c.a, c.f), appendFixed(nil, c.b, c.f); string(a) != string(b) {
			t.Errorf("%d: %x and %x", c.f, a, b)
		}
	}
}

func BenchmarkUpdateRow(b *testing.B) {
	e := known(b)
	table, rows := tableMapBytes(), rowBytes(2)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		e.Begin()
		if err := e.Table(ctx, table); err != nil {
			b.Fatal(err)
		}
		if _, err := e.Rows(binlog.TypeUpdateRows, rows); err != nil {
			b.Fatal(err)
		}
		e.Finish()
	}
}
