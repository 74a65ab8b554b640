package recovery

import (
	"context"
	"fmt"

	"cohort/consensus"
	"cohort/internal/binlog/capture"
	"cohort/internal/committer"
)

const (
	// errRequirement is ER_BEFORE_DML_VALIDATION_ERROR.
	errRequirement = 3098
	// maxForeign bounds how many transactions that clients prepared by
	// themselves are remembered until they are gone.
	maxForeign = 64
)

// proposeForeign deals with XA transactions whose xid is not cohort's. The proxy
// refuses a client's XA PREPARE, but a routine, or someone on the socket, can
// still run one. The group does not replicate prepared transactions, so the
// branch is rolled back at once and whoever waits for its GTID gets an error.
// Should its session commit it before that, then it is as visible as any direct
// statement, and is ordered as one, with the rows that were prepared.
func (p *primary) proposeForeign(ctx context.Context, c capture.Captured) error {
	switch {
	case c.Kind == capture.KindForeignPrepared:
		p.log.Warn().Str("xid", c.XID).Msg("an XA transaction was prepared by a client; the group cannot keep it prepared: rolling it back")
		if old, ok := p.foreign[c.XID]; ok {
			_ = closeBody(&old)
		} else if len(p.foreign) >= maxForeign {
			for id, old := range p.foreign {
				_ = closeBody(&old)
				delete(p.foreign, id)
				break
			}
		}
		p.foreign[c.XID] = c
		p.gate.Submit(committer.Job{Kind: committer.Rollback, Literal: c.XID})
	case c.Committed:
		prepared, ok := p.foreign[c.XID]
		if !ok {
			return closeBodyThen(&c, fmt.Errorf("%w: %s committed the prepared transaction %s, whose rows are not known any more", ErrDiverged, c.LocalGTID, c.XID))
		}
		delete(p.foreign, c.XID)
		prepared.Kind, prepared.LocalGTID, prepared.File, prepared.Pos = capture.KindDirect, c.LocalGTID, c.File, c.Pos
		prepared.Snapshot, prepared.Serial = c.Snapshot, true
		return p.propose(ctx, prepared)
	default:
		if old, ok := p.foreign[c.XID]; ok {
			_ = closeBody(&old)
			delete(p.foreign, c.XID)
		}
	}
	p.progress.captured(&c)
	return p.m.opt.Node.Submit(ctx, &consensus.Proposal{Direct: true, Epoch: p.epoch.Load(), LocalGTID: c.LocalGTID, Refuse: errRequirement})
}

// dropForeign frees what is remembered; a later life finds the branches in XA
// RECOVER.
func (p *primary) dropForeign() {
	for _, c := range p.foreign {
		_ = closeBody(&c)
	}
}
