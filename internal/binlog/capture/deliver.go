package capture

import (
	"fmt"

	"cohort/internal/binlog"
)

// endTrx ends BEGIN … XID or COMMIT.
func (a *assembler) endTrx() error {
	if !a.local {
		return a.endGroup()
	}
	return a.deliver(KindDirect, binlog.KindTransaction)
}

// endGroup ends a transaction under one of the group's GTIDs: its number is in
// this database from here on.
func (a *assembler) endGroup() error {
	if n := a.gtid.GNO; n > 0 {
		a.tracker.add(uint64(n))
	}
	if a.opt.OnGroup != nil {
		a.opt.OnGroup(uint64(a.gtid.GNO))
	}
	return a.idle()
}

func (a *assembler) idle() error {
	a.body.drop()
	a.phase = phaseIdle
	// Inside a payload the position is already that of the payload's end.
	a.done = StartAt{a.file, a.pos}
	return nil
}

func (a *assembler) prepared(ev []byte) error {
	if a.phase != phasePrepare {
		return fmt.Errorf("%w: XA_prepare event without XA END", ErrUnterminated)
	}
	onePhase, xid, own, err := parseXAPrepare(ev[binlog.HeaderSize:])
	if err != nil {
		return err
	}
	if xid != a.xid || own != a.own {
		return fmt.Errorf("%w: XA START of %s, XA_prepare of %s", binlog.ErrMalformed, a.xid, xid)
	}
	if !a.local {
		return a.endGroup()
	}
	if onePhase {
		return a.deliver(KindDirect, binlog.KindTransaction)
	}
	if a.own {
		return a.deliver(KindPrepared, binlog.KindTransaction)
	}
	return a.deliver(KindForeignPrepared, binlog.KindTransaction)
}

// decided takes XA COMMIT or XA ROLLBACK.
func (a *assembler) decided(q *binlog.Query, commit bool) error {
	if !a.local {
		return a.endGroup()
	}
	xid, _, err := parseXID(q.SQL)
	if err != nil {
		return err
	}
	c := a.captured(KindXADecision)
	c.XID, c.Committed = xid, commit
	return a.emit(c)
}

func (a *assembler) captured(k Kind) Captured {
	return Captured{
		Kind: k, XID: a.xid, LocalGTID: gtidText(&a.gtid), File: a.file, Pos: a.pos,
		Snapshot: a.tracker.snapshot(),
	}
}

// deliver hands a transaction or statement to the sink.
func (a *assembler) deliver(k Kind, body binlog.Kind) error {
	if !a.wanted(k) {
		return a.idle()
	}
	c := a.captured(k)
	c.Meta = binlog.Meta{
		Kind: body, GTIDFlags: a.gtid.Flags, Timestamp: a.ts,
		OriginalCommitTimestamp: a.gtid.OriginalCommitTimestamp,
		OriginalServerVersion:   a.gtid.OriginalServerVersion,
	}
	x := a.ex.Finish()
	c.WriteSet, c.Wide, c.Serial, c.CommitOrder = x.WriteSet, x.Wide, x.Serial, x.CommitOrder
	if a.large && k != KindDirect {
		a.deny(RefuseTooLarge, "the transaction exceeds group_replication_transaction_size_limit")
		a.body.drop()
	}
	c.Refuse, c.RefuseText = a.refuse, a.refuseText
	if c.Refuse == 0 {
		c.Refuse, c.RefuseText = x.Refuse, x.RefuseText
	}
	if k == KindDirect {
		// Nothing held its rows between statement and order, so it counts as
		// touching and following everything around it.
		c.Serial = true
		c.NoData = a.noData && body == binlog.KindStatement
		if !a.allObjects && !a.large {
			c.Objects = append(a.objects, x.Names...)
		}
	}
	b, err := a.body.finish()
	if err != nil {
		return err
	}
	c.Body = b
	return a.emit(c)
}

func (a *assembler) emit(c Captured) error {
	if !a.wanted(c.Kind) {
		return a.idle()
	}
	if err := a.sink(c); err != nil {
		c.Body.Close() // the sink did not take it
		return err
	}
	return a.idle()
}
