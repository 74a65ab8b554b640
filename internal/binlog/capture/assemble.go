package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"cohort/internal/binlog"
)

// phase is where in a transaction the stream stands.
type phase uint8

const (
	phaseIdle    phase = iota // between transactions
	phaseGTID                 // the GTID event went by
	phaseTrx                  // inside BEGIN … XID or COMMIT
	phaseXA                   // inside XA START … XA_prepare
	phasePrepare              // XA END went by
)

// assembler turns events into Captured. It is fed by one goroutine.
type assembler struct {
	opt   *Options
	group binlog.UUID
	ex    Extractor
	limit func() int64
	sink  func(Captured) error
	// wanted says whether a kind is to be delivered; the body of others is not
	// gathered. XA phases ask for KindPrepared.
	wanted func(Kind) bool

	tracker  tracker
	checksum bool
	file     string
	pos      uint64 // of the next event
	done     StartAt

	phase phase
	gtid  binlog.GTID
	ts    uint32 // of the GTID event's header
	own   bool   // the xid is cohort's
	xid   string
	local bool // the GTID is not the group's
	large bool // above the size limit: the write set is no longer gathered

	refuse      uint16
	refuseText  string
	objects     []string
	allObjects  bool // a statement did not say what it touched
	noData      bool // the last statement changes no data and no definition
	body        builder
	statementAt int // where in body.buf the statement's first row event is
	payload     payload
	inner       bool // the event at hand comes out of a payload
}

// handle takes one event as it stands in the file.
func (a *assembler) handle(ctx context.Context, ev []byte) error {
	h, err := binlog.ParseHeader(ev)
	if err != nil {
		return err
	}
	if int(h.Size) != len(ev) {
		return fmt.Errorf("%w: event of %d bytes says %d", binlog.ErrMalformed, len(ev), h.Size)
	}
	switch h.Type {
	case binlog.TypeHeartbeat, binlog.TypeHeartbeatV2:
		return nil
	case binlog.TypeFormatDescription:
		fd, err := binlog.ParseFormatDescription(ev)
		if err != nil {
			return err
		}
		a.checksum = fd.Checksums
		return a.advance(h)
	case binlog.TypeRotate:
		return a.rotate(h, ev)
	}
	plain := ev
	if a.checksum {
		if len(ev) < binlog.MinEventSize {
			return fmt.Errorf("%w: no room for a checksum", binlog.ErrMalformed)
		}
		plain = ev[:len(ev)-binlog.ChecksumSize]
	}
	if err := a.advance(h); err != nil {
		return err
	}
	if err := a.event(ctx, h, plain); err != nil {
		return fmt.Errorf("event of type %d before %s:%d: %w", h.Type, a.file, a.pos, err)
	}
	return nil
}

// advance keeps our own account of the position: events carry only the low 32
// bits of it, and artificial ones are not in the file.
func (a *assembler) advance(h binlog.Header) error {
	if h.LogPos == 0 || h.Flags&binlog.FlagArtificial != 0 {
		return nil
	}
	a.pos += uint64(h.Size)
	if uint32(a.pos) != h.LogPos {
		return fmt.Errorf("%w: at %s:%d, but the event ends at %d", ErrPosition, a.file, a.pos, h.LogPos)
	}
	return nil
}

// rotate reads a rotate event, real or artificial. The artificial one before
// the first format description may or may not carry a checksum, so the name is
// taken up to what can be part of a file name's number.
func (a *assembler) rotate(h binlog.Header, ev []byte) error {
	if a.phase != phaseIdle {
		return fmt.Errorf("%w: a binary log file ends inside a transaction", ErrUnterminated)
	}
	file, pos, err := binlog.ParseRotate(ev)
	if err != nil {
		return err
	}
	if h.LogPos != 0 && h.Flags&binlog.FlagArtificial == 0 {
		if err := a.advance(h); err != nil {
			return err
		}
	}
	if binlog.VerifyChecksum(ev) == nil {
		file = file[:len(file)-binlog.ChecksumSize]
	}
	a.file, a.pos = file, pos
	a.done = StartAt{file, pos}
	return nil
}

// event takes one event, whole but without checksum, that is not about the
// stream itself.
func (a *assembler) event(ctx context.Context, h binlog.Header, ev []byte) error {
	switch h.Type {
	case binlog.TypeGTID, binlog.TypeGTIDTagged:
		return a.begin(h, ev)
	case binlog.TypeAnonymousGTID:
		return errors.New("transaction without a GTID: gtid_mode must be ON")
	case binlog.TypePreviousGTIDs:
		set, err := binlog.ParsePreviousGTIDs(ev)
		if err != nil {
			return err
		}
		// Whatever these are, they precede this file.
		a.tracker.union(set.Of(a.group, ""))
		a.idlePosition()
		return nil
	case binlog.TypeStop:
		a.idlePosition()
		return nil
	case binlog.TypeIncident:
		return ErrIncident
	case binlog.TypeQuery:
		return a.query(h, ev)
	case binlog.TypeXID:
		// XA START … XID: mysqld 9.7.4 now and then commits an XA transaction by
		// itself in the middle of a statement that cascades, without an error. It
		// is committed, so it is a direct one.
		if a.phase != phaseTrx && a.phase != phaseXA && a.phase != phasePrepare {
			return fmt.Errorf("%w: commit outside a transaction", ErrUnterminated)
		}
		return a.endTrx()
	case binlog.TypeXAPrepare:
		return a.prepared(ev)
	case binlog.TypeTransactionPayload:
		return a.unpack(ctx, ev)
	case binlog.TypeTableMap, binlog.TypeWriteRows, binlog.TypeUpdateRows, binlog.TypeDeleteRows:
		return a.row(ctx, h, ev)
	}
	if a.phase == phaseIdle || a.phase == phaseGTID {
		if h.Flags&binlog.FlagIgnorable != 0 {
			a.idlePosition()
			return nil
		}
		return fmt.Errorf("%w: unexpected event of type %d", binlog.ErrMalformed, h.Type)
	}
	switch h.Type {
	case binlog.TypeRowsQuery:
	case binlog.TypeIntvar, binlog.TypeRand, binlog.TypeUserVar, binlog.TypeBeginLoadQuery, binlog.TypeExecuteLoadQuery:
		a.deny(RefuseRequirement, "the transaction was logged as statements: binlog_format must be ROW")
	case binlog.TypePartialUpdateRows:
		a.deny(RefuseRequirement, "the row images are partial: binlog_row_value_options must be empty")
	default:
		if h.Flags&binlog.FlagIgnorable == 0 {
			return fmt.Errorf("%w: unknown event of type %d", binlog.ErrMalformed, h.Type)
		}
	}
	return a.keep(ev)
}

// idlePosition notes that everything up to here is dealt with.
func (a *assembler) idlePosition() {
	if a.phase == phaseIdle {
		a.done = StartAt{a.file, a.pos}
	}
}

func (a *assembler) begin(h binlog.Header, ev []byte) error {
	if a.phase != phaseIdle {
		return fmt.Errorf("%w: %s", ErrUnterminated, a.gtid.String())
	}
	g, err := binlog.DecodeGTID(ev)
	if err != nil {
		return err
	}
	a.gtid, a.ts = g, h.Timestamp
	a.local = g.UUID != a.group || g.Tag != ""
	a.phase = phaseGTID
	a.own, a.xid = false, ""
	a.large = false
	a.statementAt = noStatement
	a.refuse, a.refuseText = 0, ""
	a.objects, a.allObjects, a.noData = nil, false, false
	a.body.reset(false)
	return nil
}

func (a *assembler) query(h binlog.Header, ev []byte) error {
	q, err := binlog.ParseQuery(ev)
	if err != nil {
		return err
	}
	v := classify(q.SQL)
	switch a.phase {
	case phaseGTID:
		return a.first(h, ev, &q, v)
	case phaseTrx:
		switch v {
		case verbCommit:
			return a.endTrx()
		case verbRollback:
			// Only tables without transactions make mysqld log this.
			a.deny(RefuseRequirement, "the transaction was rolled back but changed tables without transactions")
			return a.endTrx()
		case verbSavepoint:
			return a.keep(ev)
		}
		a.statement(&q, true)
		return a.keep(ev)
	case phaseXA:
		switch v {
		case verbXAEnd:
			a.phase = phasePrepare
			return nil
		case verbSavepoint:
			return a.keep(ev)
		}
		a.statement(&q, true)
		return a.keep(ev)
	}
	return fmt.Errorf("%w: statement %q", ErrUnterminated, clip(q.SQL))
}

// first takes the statement that follows the GTID event.
func (a *assembler) first(h binlog.Header, ev []byte, q *binlog.Query, v verb) (err error) {
	switch v {
	case verbBegin:
		a.phase = phaseTrx
		a.start(a.local && a.wanted(KindDirect))
		return a.keepBegin(h, q)
	case verbXAStart:
		if a.xid, a.own, err = parseXID(q.SQL); err != nil {
			return err
		}
		a.phase = phaseXA
		// ONE PHASE shows only at the end, so this may become a KindDirect.
		a.start(a.local && (a.wanted(KindPrepared) || a.wanted(KindDirect)))
		return a.keepBegin(h, q)
	case verbXACommit, verbXARollback:
		return a.decided(q, v == verbXACommit)
	}
	a.start(a.local && a.wanted(KindDirect))
	a.statement(q, false)
	if !a.local {
		return a.endGroup()
	}
	if err := a.keep(ev); err != nil {
		return err
	}
	return a.deliver(KindDirect, binlog.KindStatement)
}

// start readies body and extractor for the events of a transaction.
func (a *assembler) start(keep bool) {
	a.body.reset(keep)
	if keep {
		a.ex.Begin()
	}
}

// statement notes a statement that is not part of a transaction's flow.
func (a *assembler) statement(q *binlog.Query, inside bool) {
	if inside {
		first, _ := word(q.SQL)
		if a.phase == phaseXA || first != "CREATE" {
			// CREATE TABLE … SELECT is the only one that mysqld logs in a row
			// transaction.
			a.deny(RefuseRequirement, "the transaction was logged as statements: binlog_format must be ROW")
		}
	}
	if !keepsDefinitions(q.SQL) {
		a.ex.Invalidate()
	}
	a.noData = isFlush(q.SQL)
	objs := objects(q)
	if len(objs) == 0 {
		a.allObjects = true
	}
	a.objects = append(a.objects, objs...)
}

// unpack takes the events out of a payload.
func (a *assembler) unpack(ctx context.Context, ev []byte) error {
	if a.inner || a.phase != phaseGTID {
		return fmt.Errorf("%w: transaction payload out of place", binlog.ErrMalformed)
	}
	a.inner = true
	defer func() { a.inner = false }()
	if err := a.payload.open(ev[binlog.HeaderSize:]); err != nil {
		return err
	}
	for {
		e, err := a.payload.next()
		if err == io.EOF { // bare: truncation comes wrapped
			return nil
		}
		if err != nil {
			return err
		}
		h, err := binlog.ParseHeader(e)
		if err != nil {
			return err
		}
		if h.Type == binlog.TypeGTID || h.Type == binlog.TypeGTIDTagged {
			return fmt.Errorf("%w: GTID inside a transaction payload", binlog.ErrMalformed)
		}
		if err := a.event(ctx, h, e); err != nil {
			return err
		}
	}
}

// gtidText is GTID.String with one allocation.
func gtidText(g *binlog.GTID) string {
	var buf [36 + 1 + 32 + 1 + 20]byte
	b := append(buf[:0], g.UUID.String()...)
	if g.Tag != "" {
		b = append(append(b, ':'), g.Tag...)
	}
	return string(strconv.AppendInt(append(b, ':'), g.GNO, 10))
}
