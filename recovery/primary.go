package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"cohort/certify"
	"cohort/certify/writeset"
	"cohort/consensus"
	"cohort/internal/binlog/capture"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
	"cohort/internal/wire"
	"cohort/router"
)

// errRolledBack is ER_TRANSACTION_ROLLBACK_DURING_COMMIT.
const errRolledBack = 3101

// primary is what runs beside the mysqld that takes writes.
type primary struct {
	*life
	committer *committer.Committer
	gate      *committer.Gate
	progress  *progress
	foreign   map[string]capture.Captured // see proposeForeign
	reader    atomic.Pointer[capture.Capture]
}

// runPrimary opens mysqld for writes and runs capture and committer until one
// of them, or ctx, ends. Then the start-up sequence settles what is left.
func (l *life) runPrimary(ctx context.Context, whole *errgroup.Group, guests *guests) error {
	if err := mysqld.StopFeedChannel(ctx, l.conn); err != nil {
		return err
	}
	l.feeding = false
	executed, err := mysqld.GroupExecuted(ctx, l.conn, l.m.opt.GroupName)
	if err != nil {
		return err
	}
	from, err := binlogEnd(ctx, l.conn, l.id.Number)
	if err != nil {
		return err
	}
	p := &primary{life: l, progress: newProgress(from), foreign: make(map[string]capture.Captured)}
	defer p.dropForeign()
	p.committer = committer.New(committer.Options{Dial: p.dial, Conns: l.m.opt.CommitterConns, GroupName: l.m.opt.GroupName,
		Done: p.done, Logger: l.log.With().Str("component", "committer").Logger()})
	p.gate = committer.NewGate(committer.GateOptions{Submit: p.committer.Submit, Logger: l.log,
		Preparing: func(ctx context.Context) ([]string, error) { return mysqld.Preparing(ctx, l.pool) }})
	l.m.opt.Router.SetOrigin(l.incarnation, p.gate)
	defer l.m.opt.Router.SetOrigin(0, nil)
	defer l.m.opt.Router.SetOpen(0)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		// At once: the others may take their time to end.
		<-ctx.Done()
		l.m.opt.Router.SetOpen(0)
		return context.Cause(ctx)
	})
	g.Go(func() error { return p.committer.Run(ctx) })
	g.Go(func() error { return p.gate.Run(ctx) })
	g.Go(func() error {
		if err := p.proposeGap(ctx, from); err != nil {
			return err
		}
		if err := l.checkpoint(from); err != nil {
			return err
		}
		// Only now: a watermark says that nothing so old will come any more.
		l.startMarks(ctx, whole)
		g.Go(func() error { return p.capture(ctx, from, executed) })
		g.Go(func() error { return p.saveProgress(ctx) })
		g.Go(func() error { return p.sweep(ctx) })
		drain := p.drain
		p.lastly.Store(&drain)
		if err := p.open(ctx); err != nil {
			return err
		}
		g.Go(func() error { return p.applyGuests(ctx, guests) })
		return l.watchServer(ctx)
	})
	return g.Wait()
}

// drainLimit bounds how long a replaced primary stays to have ordered what
// mysqld has committed.
const drainLimit = 2 * time.Second

// drain has the statements ordered that mysqld has committed by itself so far:
// the sooner, the less there is that they can conflict with, and what this life
// does not get ordered the next one has to propose without knowing the
// definitions of then. Transactions abort, since their epoch is over.
func (p *primary) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	end, err := binlogEnd(ctx, p.pool, p.id.Number)
	for err == nil {
		c := p.reader.Load()
		if c == nil || !c.Position().Before(end) && p.progress.quiet() {
			return
		}
		err = pause.For(ctx, pollPromotion)
	}
	p.log.Debug().Err(err).Msg("a statement may be left for the next life to propose")
}

// open lets writes in: on the writable primary, and only there, commits need
// no order, which lets XA COMMITs share their flushes (DESIGN §8).
func (p *primary) open(ctx context.Context) error {
	err := mysqld.SetGlobals(ctx, p.conn, map[string]string{"binlog_order_commits": "OFF"})
	if err != nil {
		return err
	}
	if err := p.dropReadLocks(ctx); err != nil {
		return err
	}
	if err := p.exec(ctx, "SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF"); err != nil {
		return err
	}
	p.writable.Store(true)
	p.m.opt.Router.SetOpen(p.epoch.Load())
	return p.online(ctx)
}

// watchServer notices that mysqld died while nothing else talks to it.
func (l *life) watchServer(ctx context.Context) error {
	for {
		if err := pause.For(ctx, pollIdle); err != nil {
			return err
		}
		if err := l.poll(ctx); err != nil {
			return err
		}
	}
}

// dial opens a connection for the committer.
func (p *primary) dial(ctx context.Context) (committer.Conn, error) {
	c, err := wire.Dial(ctx, wire.Config{Network: "unix", Addr: p.m.opt.Socket, User: AccountName, Password: p.m.password})
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "SET SESSION session_track_gtids=OWN_GTID"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// done is told that a verdict is carried out.
func (p *primary) done(j committer.Job) {
	if j.Kind == committer.Rollback {
		return
	}
	if j.LocalGTID != "" {
		p.progress.settled(j.LocalGTID)
	}
	p.m.opt.Router.Tracker(p.m.opt.ReplicaID).Add(j.N)
}

func (l *life) newCapture(executed mysqld.GroupSet) (*capture.Capture, error) {
	ex, err := writeset.New(writeset.Options{DB: l.pool, Logger: l.log})
	if err != nil {
		return nil, err
	}
	return capture.New(capture.Options{
		Network: "unix", Addr: l.m.opt.Socket, User: AccountName, Password: l.m.password,
		ServerID: captureServerID(l.id.ServerID), GroupUUID: l.m.opt.GroupName,
		Executed:             capture.Snapshot{Low: executed.Low, Extra: executed.Extra},
		Extractor:            ex,
		TransactionSizeLimit: l.m.sizeLimit.Load(),
		SpillDir:             l.m.opt.Dir,
		Logger:               l.log.With().Str("component", "capture").Logger(),
	})
}

// captureServerID is the id under which capture reads the binary log: mysqld
// drops an older dump that uses the same one.
func captureServerID(serverID uint32) uint32 { return 0xC0000000 | serverID&0x3FFFFFFF }

// capture reads this mysqld's binary log and proposes what happens in it.
func (p *primary) capture(ctx context.Context, from capture.StartAt, executed mysqld.GroupSet) error {
	c, err := p.newCapture(executed)
	if err != nil {
		return err
	}
	p.reader.Store(c)
	p.m.capture.Store(c)
	c.SetTransactionSizeLimit(p.m.sizeLimit.Load()) // it may have changed since
	return c.Run(ctx, from, func(c capture.Captured) error { return p.propose(ctx, c) })
}

// propose hands one captured thing to the log, in the binary log's order.
func (p *primary) propose(ctx context.Context, c capture.Captured) error {
	if c.Kind == capture.KindForeignPrepared || c.Kind == capture.KindXADecision && !router.IsOurs(c.XID) {
		return p.proposeForeign(ctx, c)
	}
	if c.Kind == capture.KindXADecision && c.Committed {
		// Before the checkpoint passes it: no later start may miss it.
		return closeBodyThen(&c, fmt.Errorf("%w: %s committed a prepared transaction that the group did not order", ErrDiverged, c.LocalGTID))
	}
	p.progress.captured(&c)
	prop := p.proposal(&c)
	switch c.Kind {
	case capture.KindPrepared:
		// A coordinator decides by this member's fence what becomes of an xid
		// that it made under an earlier incarnation; so such an xid must not
		// commit under a later one.
		if x, err := router.ParseXID(c.XID); err != nil || x.Incarnation != p.incarnation {
			prop.Refuse = errRolledBack
		}
	case capture.KindXADecision:
		return closeBody(&c) // a rollback
	}
	return p.m.opt.Node.Submit(ctx, prop)
}

// proposal is what the log is asked about c.
func (l *life) proposal(c *capture.Captured) *consensus.Proposal {
	prop := &consensus.Proposal{Epoch: l.epoch.Load(),
		XID: c.XID, LocalGTID: c.LocalGTID, Meta: c.Meta,
		Snapshot: certify.Snapshot{Low: c.Snapshot.Low, Extra: c.Snapshot.Extra},
		Writes:   c.Writes, Refs: c.Refs, Tables: c.Tables,
		Serial: c.Serial, CommitOrder: c.CommitOrder, Wide: c.Wide, Refuse: c.Refuse,
	}
	if c.Body != nil {
		prop.BodyLen = c.Body.Len()
		if prop.Body = c.Body.Bytes(); prop.Body == nil {
			body := c.Body
			prop.Open = func() (io.ReadCloser, error) { return bodyReader{body.Reader(), body}, nil }
		}
	}
	if c.Kind == capture.KindDirect {
		prop.Direct, prop.XID, prop.Refuse = true, "", 0
		if c.Refuse != 0 {
			l.log.Warn().Str("gtid", c.LocalGTID).Str("reason", c.RefuseText).
				Msg("a statement that the group would have refused was committed by mysqld itself; it is ordered as it is")
		}
	}
	return prop
}

// bodyReader frees the body once it is read.
type bodyReader struct {
	io.Reader
	io.Closer
}

func closeBodyThen(c *capture.Captured, err error) error { return errors.Join(err, closeBody(c)) }

// saveProgress stores the capture checkpoint now and then.
func (p *primary) saveProgress(ctx context.Context) error {
	var saved capture.StartAt
	for {
		if err := pause.For(ctx, pollIdle); err != nil {
			return err
		}
		if at := p.progress.place(); at != saved {
			if err := p.checkpoint(at); err != nil {
				return err
			}
			saved = at
		}
	}
}
