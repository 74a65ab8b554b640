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

// settleOrdered commits what a primary that has left had prepared and the group
// ordered: its clients were told, or will be, and read here next. Nobody is connected
// any more. What the log does not know is left to the next life.
func (l *life) settleOrdered(ctx context.Context) error {
	xids, err := mysqld.XARecover(ctx, l.conn)
	if err != nil {
		return err
	}
	for _, x := range xids {
		if v, known := l.m.opt.Node.Verdict(string(x.Gtrid)); !known || !v.Committed {
			continue
		}
		if err := l.settleOne(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

// ofPresentPrimary says whether an xid was made for another member that is the
// primary now: its session still ran here, on the former primary, when it asked
// for one.
func (l *life) ofPresentPrimary(gtrid string) bool {
	x, err := router.ParseXID(gtrid)
	v := l.m.opt.Node.View()
	m, ok := v.Member(v.Primary)
	return err == nil && ok && m.ID != l.m.opt.ReplicaID && m.Incarnation == x.Incarnation
}

func (l *life) settleOne(ctx context.Context, x mysqld.XID) error {
	gtrid := string(x.Gtrid)
	verdict, known := l.m.opt.Node.Verdict(gtrid)
	if !known && l.ofPresentPrimary(gtrid) {
		// No fence of this member's covers it, and its session may wait.
		forced, err := l.m.opt.Node.ForceVerdict(ctx, []string{gtrid})
		if err != nil {
			return err
		}
		verdict, known = forced[0], true
	}
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
