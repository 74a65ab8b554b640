package writeset

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"cohort/internal/binlog"
	"cohort/internal/binlog/capture"
)

const (
	// maxPlans bounds the cache of tables; it starts anew when full.
	maxPlans = 20000
	// sortAbove is the number of hashes from which duplicates are removed by
	// sorting.
	sortAbove = 64
	// dummyTable is the number in a row event that only ends a statement.
	dummyTable = 0xffffff
)

// Options configure an Extractor.
type Options struct {
	// DB reaches the mysqld whose row events are read; one connection suffices.
	// The account must see every table: information_schema hides those on which
	// it has no privilege (SELECT on *.* is enough).
	DB     *sql.DB
	Logger zerolog.Logger
}

// Extractor implements capture.Extractor. It is not safe for concurrent use.
type Extractor struct {
	src    source
	log    zerolog.Logger
	byName map[string]*plan
	byID   map[uint64]*plan

	used   []*plan // tables of this transaction
	out    capture.Extract
	before row
	after  row
	relax  bool // see capture.Extractor.Rows
	buf    []byte
}

var _ capture.Extractor = (*Extractor)(nil)

// row is the values of one row image; nil stands for NULL.
type row [][]byte

// hashed is a key's hash; ok is false if a part of it is NULL.
type hashed struct {
	h  uint64
	ok bool
}

// New returns an Extractor that knows no table yet.
func New(opt Options) (*Extractor, error) {
	if opt.DB == nil {
		return nil, errors.New("writeset: no database")
	}
	e := &Extractor{src: source{db: opt.DB}, log: opt.Logger}
	e.Invalidate()
	return e, nil
}

// Invalidate implements capture.Extractor.
func (e *Extractor) Invalidate() {
	if len(e.byName) > 0 || e.byName == nil {
		e.byName = make(map[string]*plan)
		e.byID = make(map[uint64]*plan)
	}
}

// Begin implements capture.Extractor.
func (e *Extractor) Begin() {
	e.used = e.used[:0]
	e.out = capture.Extract{}
}

// Finish implements capture.Extractor.
func (e *Extractor) Finish() capture.Extract {
	out := e.out
	e.out = capture.Extract{}
	out.Writes = unique(out.Writes)
	out.Refs = unique(out.Refs)
	if len(e.used) > 0 {
		out.Tables = make([]uint64, len(e.used))
		for i, p := range e.used {
			out.Tables[i] = p.hash
			out.Names = append(out.Names, p.object)
		}
	}
	return out
}

// unique removes duplicates; small sets are without them already.
func unique(h []uint64) []uint64 {
	if len(h) > sortAbove {
		slices.Sort(h)
		h = slices.Compact(h)
	}
	return h
}

// Table implements capture.Extractor.
func (e *Extractor) Table(ctx context.Context, body []byte) error {
	if len(body) < 8 {
		return truncated("table map")
	}
	id, raw := tableID(body), body[6:]
	p := e.byID[id]
	if p == nil || !bytes.Equal(p.raw, raw) {
		var err error
		if p, err = e.find(ctx, id, body); err != nil {
			return err
		}
	}
	if slices.Contains(e.used, p) {
		return nil
	}
	e.used = append(e.used, p)
	e.out.Serial = e.out.Serial || p.serial || p.coarse
	e.out.Wide = e.out.Wide || p.coarse
	e.out.CommitOrder = e.out.CommitOrder || p.commitOrder
	if p.refuse != "" && e.out.Refuse == 0 {
		e.out.Refuse, e.out.RefuseText = capture.RefuseRequirement, p.refuse
	}
	return nil
}

// find makes or finds the plan of a table whose number is new. mysqld gives a
// new number whenever it opens the table anew, which alone means no change; an
// event that reads differently does.
func (e *Extractor) find(ctx context.Context, id uint64, body []byte) (*plan, error) {
	m, err := parseTableMap(body)
	if err != nil {
		return nil, err
	}
	raw := body[6:]
	name := string(m.schema) + "\x00" + string(m.table)
	p := e.byName[name]
	if p == nil || !bytes.Equal(p.raw, raw) {
		d, err := e.src.load(ctx, string(m.schema), string(m.table), true)
		if err != nil {
			return nil, err
		}
		if p, err = e.newPlan(ctx, &m, raw, d); err != nil {
			return nil, err
		}
		if p.coarse {
			e.log.Info().Str("schema", string(m.schema)).Str("table", string(m.table)).Str("why", p.refuse).
				Msg("the table counts as one key: its definition differs from that of the event, or is refused")
		}
		if len(e.byName) >= maxPlans {
			e.Invalidate()
		}
		e.byName[name] = p
	}
	if len(e.byID) >= maxPlans {
		clear(e.byID)
	}
	e.byID[id] = p
	return p, nil
}

// Rows implements capture.Extractor.
func (e *Extractor) Rows(typ binlog.Type, body []byte) (relax bool, err error) {
	if len(body) < 10 {
		return false, truncated("row event")
	}
	id := tableID(body)
	if id == dummyTable {
		return false, nil
	}
	p := e.byID[id]
	if p == nil || !slices.Contains(e.used, p) {
		return false, fmt.Errorf("%w: row event for table %d, which was not announced", binlog.ErrMalformed, id)
	}
	extra := int(binary.LittleEndian.Uint16(body[8:]))
	if extra < 2 || len(body) < 8+extra {
		return false, truncated("row event")
	}
	width, b, ok := lenenc(body[8+extra:])
	if !ok {
		return false, truncated("row event")
	}
	if width != uint64(len(p.widths)) {
		return false, fmt.Errorf("%w: row event of %d columns, table map of %d", binlog.ErrMalformed, width, len(p.widths))
	}
	full := true
	images := 1
	if typ == binlog.TypeUpdateRows {
		images = 2
	}
	bitmap := (int(width) + 7) / 8
	if len(b) < images*bitmap {
		return false, truncated("row event")
	}
	for range images {
		full = full && allSet(b[:bitmap], int(width))
		b = b[bitmap:]
	}
	if !full {
		if e.out.Refuse == 0 {
			e.out.Refuse = capture.RefuseRequirement
			e.out.RefuseText = "the row images are not complete: binlog_row_image must be FULL"
		}
		e.out.Wide, e.out.Serial = true, true
		return false, nil
	}
	if p.coarse {
		return false, nil
	}
	e.relax = false
	err = e.images(p, typ, b)
	return e.relax, err
}

// images reads the row images up to the end of the event.
func (e *Extractor) images(p *plan, typ binlog.Type, b []byte) (err error) {
	for len(b) > 0 {
		if e.before, b, err = p.read(e.before, b); err != nil {
			return err
		}
		switch typ {
		case binlog.TypeWriteRows:
			e.single(p, e.before)
		case binlog.TypeDeleteRows:
			e.single(p, e.before)
			for i := range p.keys {
				e.out.CommitOrder = e.out.CommitOrder || p.keys[i].referenced
				e.out.Serial = e.out.Serial || p.keys[i].cascadeDelete
			}
		default:
			if e.after, b, err = p.read(e.after, b); err != nil {
				return err
			}
			e.changed(p)
		}
	}
	return nil
}

// read cuts one row image into values.
func (p *plan) read(dst row, b []byte) (row, []byte, error) {
	n := len(p.widths)
	if cap(dst) < n {
		dst = make(row, n)
	}
	dst = dst[:n]
	nulls := (n + 7) / 8
	if len(b) < nulls {
		return dst, nil, truncated("row image")
	}
	null := b[:nulls]
	b = b[nulls:]
	for i := range p.widths {
		if null[i>>3]&(1<<(i&7)) != 0 {
			dst[i] = nil
			continue
		}
		w := p.widths[i]
		if w.prefix == 0 {
			if len(b) < w.fixed {
				return dst, nil, truncated("row image")
			}
			dst[i], b = b[:w.fixed:w.fixed], b[w.fixed:]
			continue
		}
		var ok bool
		if dst[i], b, ok = w.take(b); !ok {
			return dst, nil, truncated("row image")
		}
	}
	return dst, b, nil
}

// single adds the keys of a row that appeared or went.
func (e *Extractor) single(p *plan, r row) {
	for i := range p.keys {
		if h := e.hash(&p.keys[i], r); h.ok {
			e.write(h.h)
		}
	}
	for i := range p.refs {
		if h := e.hash(&p.refs[i], r); h.ok {
			e.ref(h.h)
		}
	}
}

// changed adds the keys of an updated row. A unique key whose value stays needs
// no mention: the row itself is named by its identity.
func (e *Extractor) changed(p *plan) {
	for i := range p.keys {
		k := &p.keys[i]
		old, new := e.hash(k, e.before), e.hash(k, e.after)
		if old != new || k.identity || k.constant {
			if old.ok {
				e.write(old.h)
			}
			if new.ok && new != old {
				e.write(new.h)
			}
		}
		// By bytes, not by weight: a foreign key follows a change of case too.
		if k.referenced && (k.constant || !sameBytes(k, e.before, e.after)) {
			e.out.CommitOrder = true
			e.out.Serial = e.out.Serial || k.cascadeUpdate
			// mysqld 9.6 and later logs the cascade in front of the parent's row.
			// If the new value only looks different, its own appliers then find
			// children of the old one and stop with 1451 (seen on 9.7.4). All
			// rows are in the events, so nothing is to be checked there.
			e.relax = e.relax || old == new && e.src.logsCascades
		}
	}
	for i := range p.refs {
		old, new := e.hash(&p.refs[i], e.before), e.hash(&p.refs[i], e.after)
		if old.ok {
			e.ref(old.h)
		}
		if new.ok && new != old {
			e.ref(new.h)
		}
	}
}

func sameBytes(k *key, a, b row) bool {
	for i := range k.parts {
		c := k.parts[i].col
		if !bytes.Equal(a[c], b[c]) || (a[c] == nil) != (b[c] == nil) {
			return false
		}
	}
	return true
}

func (e *Extractor) write(h uint64) { e.out.Writes = add(e.out.Writes, h) }
func (e *Extractor) ref(h uint64)   { e.out.Refs = add(e.out.Refs, h) }

// add keeps small sets free of duplicates as they grow.
func add(s []uint64, h uint64) []uint64 {
	if len(s) <= sortAbove && slices.Contains(s, h) {
		return s
	}
	if s == nil {
		s = make([]uint64, 0, 4)
	}
	return append(s, h)
}

// hash is the hash of one key's value in a row. A NULL in any part makes the
// value unique (or, for a foreign key, refer to nothing).
func (e *Extractor) hash(k *key, r row) hashed {
	buf := startKey(e.buf, k.seed)
	for i := range k.parts {
		kp := &k.parts[i]
		v := r[kp.col]
		if v == nil {
			return hashed{}
		}
		if !k.constant {
			buf = kp.append(buf, v)
		}
	}
	e.buf = buf
	return hashed{keyHash(buf), true}
}

// append appends a part's value so that different lists of values never give
// the same bytes: strings carry their length.
func (kp *keyPart) append(dst, v []byte) []byte {
	if kp.form < formBytes {
		return appendFixed(dst, v, kp.form)
	}
	if kp.prefix > 0 {
		v = kp.coll.prefix(v, kp.prefix)
	}
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	switch kp.form {
	case formBytes:
		dst = append(dst, v...)
	case formBin:
		dst = append(dst, bytes.TrimRight(v, " ")...)
	default:
		dst = kp.coll.appendWeights(dst, v)
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

func allSet(bitmap []byte, n int) bool {
	for i := range n {
		if bitmap[i>>3]&(1<<(i&7)) == 0 {
			return false
		}
	}
	return true
}
