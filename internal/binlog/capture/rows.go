package capture

import (
	"context"
	"fmt"

	"cohort/internal/binlog"
)

func (a *assembler) row(ctx context.Context, h binlog.Header, ev []byte) error {
	if a.phase != phaseTrx && a.phase != phaseXA {
		return fmt.Errorf("%w: row event outside a transaction", ErrUnterminated)
	}
	if a.body.skip {
		return nil
	}
	if h.Type == binlog.TypeTableMap {
		if !a.large {
			if err := a.ex.Table(ctx, ev[binlog.HeaderSize:]); err != nil {
				return err
			}
		}
		return a.keep(ev)
	}
	relax := false
	if !a.large {
		var err error
		if relax, err = a.ex.Rows(h.Type, ev[binlog.HeaderSize:]); err != nil {
			return err
		}
	}
	return a.keepRows(ev, relax)
}

// Flags of row events and where they stand.
const (
	rowsFlagsAt       = binlog.HeaderSize + 6
	rowsStatementEnd  = 0x1
	rowsNoForeignKeys = 0x2

	noStatement = -1 // values of statementAt
	notInMemory = -2
)

// keepRows keeps a row event. An applier reads the flag that turns off foreign
// key checks from the first row event of a statement, so that is where it goes.
func (a *assembler) keepRows(ev []byte, relax bool) error {
	if len(ev) < rowsFlagsAt+2 {
		return fmt.Errorf("row event: %w", binlog.ErrTruncated)
	}
	first := a.statementAt == noStatement
	if first {
		a.statementAt = len(a.body.buf)
	}
	end := ev[rowsFlagsAt]&rowsStatementEnd != 0
	if relax {
		ev[rowsFlagsAt] |= rowsNoForeignKeys
	}
	size := a.body.size + int64(len(ev)) + binlog.ChecksumSize
	if err := a.keep(ev); err != nil {
		return err
	}
	spilled := int64(len(a.body.buf)) != size
	switch {
	case relax && !first && (a.statementAt == notInMemory || spilled):
		a.deny(RefuseRequirement, "a large statement changes a referenced key to an equal one, which replicas cannot apply")
	case relax && !first:
		one, _, err := binlog.NextEvent(a.body.buf[a.statementAt:])
		if err != nil {
			return err
		}
		one[rowsFlagsAt] |= rowsNoForeignKeys
		binlog.FixChecksum(one)
	}
	switch {
	case end:
		a.statementAt = noStatement
	case spilled:
		a.statementAt = notInMemory
	}
	return nil
}

// keep adds an event to the body, rewritten.
func (a *assembler) keep(ev []byte) error {
	if a.body.skip {
		return nil
	}
	// As binlog.Rewrite, but the checksum is cut off already.
	before := len(a.body.buf)
	buf := append(a.body.buf, ev...)
	binlog.SetHeader(buf[before:], binlog.RenderedServerID, 0)
	binlog.SetSize(buf[before:], uint32(len(ev)+binlog.ChecksumSize))
	a.body.buf = binlog.AppendChecksum(buf, before)
	return a.grown(before)
}

// keepBegin adds the BEGIN that an XA START becomes; BEGIN itself stays as it
// is.
func (a *assembler) keepBegin(h binlog.Header, q *binlog.Query) (err error) {
	if a.body.skip {
		return nil
	}
	before := len(a.body.buf)
	if a.body.buf, err = binlog.AppendBegin(a.body.buf, h.Timestamp, q); err != nil {
		return err
	}
	return a.grown(before)
}

// grown follows each addition to the body. Above the limit a prepared
// transaction will be refused, so its write set stops growing in memory. The
// body still goes to the spill file until the end: XA COMMIT ONE PHASE shows
// only there, and what mysqld committed by itself must be kept at any size.
func (a *assembler) grown(before int) error {
	if err := a.body.added(before); err != nil {
		return err
	}
	if a.phase == phaseXA && !a.large {
		if limit := a.limit(); limit > 0 && a.body.size > limit {
			a.large = true
			a.ex.Begin()
		}
	}
	return nil
}

// deny refuses the transaction; the first reason stands.
func (a *assembler) deny(errno uint16, text string) {
	if a.refuse == 0 {
		a.refuse, a.refuseText = errno, text
	}
}
