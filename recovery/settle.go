package recovery

import (
	"context"
	"fmt"

	"cohort/internal/binlog/capture"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
	"cohort/router"
)

// settlePrepared decides what earlier lives left prepared, as the log says
// (DESIGN §9.2). The incarnation is ordered, so a transaction that the log does
// not know now is one that it will never accept.
func (l *life) settlePrepared(ctx context.Context) error {
	xids, err := mysqld.XARecover(ctx, l.conn)
	if err != nil {
		return err
	}
	for _, x := range xids {
		gtrid := string(x.Gtrid)
		if !router.IsOurs(gtrid) {
			// The group keeps no prepared transactions but its own; see proposeForeign.
			l.log.Warn().Str("xid", x.SQL()).Msg("rolling back a prepared transaction that is not cohort's")
			if err := l.exec(ctx, "XA ROLLBACK "+x.SQL()); err != nil {
				return err
			}
			continue
		}
		if err := l.settleOne(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

func (l *life) settleOne(ctx context.Context, x mysqld.XID) error {
	gtrid := string(x.Gtrid)
	verdict, known := l.m.opt.Node.Verdict(gtrid)
	executed, err := mysqld.GroupExecuted(ctx, l.conn, l.m.opt.GroupName)
	if err != nil {
		return err
	}
	quoted := committer.Quote(gtrid)
	var stmts []string
	switch {
	case known && verdict.Committed && executed.Has(verdict.N):
		// mysqld's binary log has it, its engine lost the end of it (bug
		// #109434): the GTID is used up, so the commit goes unlogged.
		stmts = []string{"SET sql_log_bin=0", "XA COMMIT " + quoted, "SET sql_log_bin=1"}
	case known && verdict.Committed:
		gtid := committer.GTID(l.m.opt.GroupName, verdict.N)
		stmts = []string{"SET gtid_next='" + gtid + "'", "XA COMMIT " + quoted, "SET gtid_next='AUTOMATIC'"}
	default:
		stmts = []string{"XA ROLLBACK " + quoted}
	}
	l.log.Info().Str("xid", gtrid).Bool("known", known).Bool("committed", verdict.Committed).Uint64("n", verdict.N).
		Msg("settling a transaction that was left prepared")
	return l.exec(ctx, stmts...)
}

// settleDirects reads what this mysqld ran by itself since the checkpoint.
// Statements that the log has ordered get their empty group transaction if a
// crash came before it: otherwise the feed would run them a second time. The
// rest is returned, to be proposed late.
func (l *life) settleDirects(ctx context.Context) (late []capture.Captured, err error) {
	from, err := loadCheckpoint(l.m.opt.Dir)
	if err != nil {
		return nil, err
	}
	if from.ServerUUID != l.id.ServerUUID {
		// The first life beside this mysqld: what lies before is the data set
		// that it brings.
		return nil, l.checkpoint(l.began)
	}
	defer func() {
		if err != nil {
			closeAll(late)
			late = nil
		}
	}()
	late, err = l.directsBetween(ctx, capture.StartAt{File: from.File, Pos: from.Pos}, l.began)
	if err == nil && len(late) == 0 {
		err = l.checkpoint(l.began)
	}
	return late, err
}

// directsBetween reads a part of this mysqld's binary log. What it finds ordered
// gets its empty group transaction; the rest it returns.
func (l *life) directsBetween(ctx context.Context, from, to capture.StartAt) (late []capture.Captured, err error) {
	scan, err := l.newCapture(mysqld.GroupSet{})
	if err != nil {
		return nil, err
	}
	primary := l.m.opt.Node.View().Primary == l.m.opt.ReplicaID
	err = scan.ScanDirects(ctx, from, to,
		func(c capture.Captured) error {
			switch {
			case c.Kind == capture.KindDirect && c.NoData && !primary:
				l.log.Info().Str("gtid", c.LocalGTID).Msg("passing over a statement that changed no data")
				return closeBody(&c)
			case c.Kind == capture.KindXADecision && c.Committed:
				return closeBodyThen(&c, fmt.Errorf("%w: %s committed a prepared transaction that the group did not order", ErrDiverged, c.LocalGTID))
			case c.Kind != capture.KindDirect:
				return closeBody(&c)
			}
			verdict, known := l.m.opt.Node.DirectByLocalGTID(c.LocalGTID)
			switch {
			case known && !verdict.Committed:
				return fmt.Errorf("%w: the group refused %s", ErrDiverged, c.LocalGTID)
			case known:
				if err := closeBody(&c); err != nil {
					return err
				}
				return l.writeEmpty(ctx, verdict.N)
			default:
				late = append(late, c)
				return nil
			}
		})
	if err != nil {
		return late, fmt.Errorf("look for statements that never reached the log: %w", err)
	}
	return late, nil
}

// writeEmpty takes number n for a statement that this mysqld has already run.
// A number that is executed already does nothing.
func (l *life) writeEmpty(ctx context.Context, n uint64) error {
	return l.exec(ctx, "SET gtid_next='"+committer.GTID(l.m.opt.GroupName, n)+"'", "BEGIN", "COMMIT", "SET gtid_next='AUTOMATIC'")
}

func (l *life) checkpoint(at capture.StartAt) error {
	return checkpoint{ServerUUID: l.id.ServerUUID, File: at.File, Pos: at.Pos}.save(l.m.opt.Dir)
}

// exec runs statements in the life's own session.
func (l *life) exec(ctx context.Context, stmts ...string) error {
	for _, s := range stmts {
		if _, err := l.conn.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func closeBody(c *capture.Captured) error {
	if c.Body == nil {
		return nil
	}
	return c.Body.Close()
}

func closeAll(cs []capture.Captured) {
	for i := range cs {
		_ = closeBody(&cs[i]) // a spill file at worst; the directory is cleared at start
	}
}
