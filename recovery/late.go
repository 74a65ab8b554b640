package recovery

import (
	"context"
	"fmt"

	"cohort/internal/binlog/capture"
	"cohort/internal/committer"
	"cohort/internal/mysqld"
)

// settleDirects reads what this mysqld ran by itself since the checkpoint.
// Statements that the log has ordered get their empty group transaction if a
// crash came before it: otherwise the feed would run them a second time. The
// others are proposed now if this member was the primary when it ran them, whatever
// it is today: somebody may have been shown the result.
func (l *life) settleDirects(ctx context.Context) error {
	from, err := loadCheckpoint(l.m.opt.Dir)
	if err != nil {
		return err
	}
	if from.ServerUUID != l.id.ServerUUID {
		// The first life beside this mysqld: what lies before is the data set
		// that it brings.
		return l.checkpoint(l.scanned)
	}
	// Settling what was prepared has written to the binary log.
	if err := l.markScanned(ctx); err != nil {
		return err
	}
	secondary := !from.Primary && !l.appointed()
	late, err := l.directsBetween(ctx, capture.StartAt{File: from.File, Pos: from.Pos}, l.scanned, secondary)
	defer closeAll(late)
	if err != nil {
		return err
	}
	if secondary && len(late) > 0 {
		return fmt.Errorf("%w: %s was run on a secondary", ErrDiverged, late[0].LocalGTID)
	}
	for i := range late {
		if err := l.settleLate(ctx, &late[i]); err != nil {
			return err
		}
	}
	return l.checkpoint(l.scanned)
}

// settleLate orders a statement that an earlier life ran and did not get
// ordered, and writes its empty group transaction (DESIGN §3, direct
// statements). It comes before the feed, which would run it again.
func (l *life) settleLate(ctx context.Context, c *capture.Captured) error {
	l.log.Info().Str("gtid", c.LocalGTID).Msg("proposing a statement that an earlier life of this member ran")
	ticket := l.m.opt.Router.ExpectDirect(c.LocalGTID)
	prop := l.proposal(c)
	c.Body = nil // Submit owns it now
	if err := l.m.opt.Node.Submit(ctx, prop); err != nil {
		ticket.Cancel()
		return err
	}
	committed, n, err := ticket.Verdict(ctx)
	if err != nil {
		return err
	}
	if !committed {
		return fmt.Errorf("%w: the group did not accept %s", ErrDiverged, c.LocalGTID)
	}
	return l.writeEmpty(ctx, n)
}

// proposeGap orders what was run up to from while this member was no primary
// yet, in spite of super_read_only.
func (p *primary) proposeGap(ctx context.Context, from capture.StartAt) error {
	local, err := mysqld.LocalExecuted(ctx, p.conn, p.m.opt.GroupName)
	if err != nil || local == p.local {
		return err // nothing, then; the binary log may be long
	}
	gap, err := p.directsBetween(ctx, p.scanned, from, true)
	defer closeAll(gap)
	if err != nil {
		return err
	}
	for i := range gap {
		c := gap[i]
		gap[i].Body = nil // Submit owns it now
		p.log.Warn().Str("gtid", c.LocalGTID).Msg("proposing a statement that was run on this member while it was read-only")
		ticket := p.m.opt.Router.ExpectDirect(c.LocalGTID)
		if err := p.propose(ctx, c); err != nil {
			ticket.Cancel()
			return err
		}
		outcome, err := ticket.Wait(ctx)
		if err != nil {
			return err
		}
		if !outcome.Committed {
			return fmt.Errorf("%w: the group did not accept %s", ErrDiverged, c.LocalGTID)
		}
	}
	return nil
}

// directsBetween reads a part of this mysqld's binary log. What it finds ordered
// gets its empty group transaction; the rest it returns. With passOver it leaves
// out statements that changed no data: nobody waits for those of a secondary.
func (l *life) directsBetween(ctx context.Context, from, to capture.StartAt, passOver bool) (late []capture.Captured, err error) {
	scan, err := l.newCapture(mysqld.GroupSet{})
	if err != nil {
		return nil, err
	}
	err = scan.ScanDirects(ctx, from, to,
		func(c capture.Captured) error {
			switch {
			case c.Kind == capture.KindDirect && c.NoData && passOver:
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
	return checkpoint{ServerUUID: l.id.ServerUUID, File: at.File, Pos: at.Pos, Primary: l.epoch.Load() != 0}.save(l.m.opt.Dir)
}
