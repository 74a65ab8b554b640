package recovery

import (
	"context"
	"time"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/pause"
)

// purgeInterval is how often the size of the group binlog is looked at.
const purgeInterval = 30 * time.Second

// purge keeps the group binlog within its space until ctx ends.
func (m *Member) purge(ctx context.Context) error {
	for m.opt.BinlogSpace > 0 {
		if err := pause.For(ctx, purgeInterval); err != nil {
			return nil
		}
		upto := purgeTarget(m.opt.Store.Files(), m.opt.BinlogSpace, storedByAll(m.opt.Node.View(), m.opt.Members))
		if upto == 0 {
			continue
		}
		switch n, err := m.opt.Store.Purge(upto); {
		case err != nil:
			m.log.Warn().Err(err).Msg("group binlog not purged")
		case n > 0:
			m.log.Info().Int("files", n).Uint64("upto", upto).Msg("group binlog purged")
		}
	}
	return nil
}

// storedByAll is up to where every member that the group counts, present or not,
// has the group's transactions on stable storage (DESIGN §9.7): what one of them
// may still ask for is never purged. A member that has not reported in its present
// life counts as having nothing. Those that were taken out are not waited for.
func storedByAll(v *state.View, members int) uint64 {
	counted, low := 0, uint64(0)
	for _, m := range v.Members {
		if m.Replica == 0 {
			continue
		}
		if counted++; counted == 1 || m.Stable < low {
			low = m.Stable
		}
	}
	if counted < members {
		return 0
	}
	return low
}

// purgeTarget is up to which number whole files may go so that the rest fits
// into space bytes; 0 for none. The last file always stays.
func purgeTarget(files []groupbinlog.FileInfo, space int64, applied uint64) uint64 {
	var total int64
	for _, f := range files {
		total += f.Size
	}
	var upto uint64
	for i := 0; i < len(files)-1 && total > space && files[i].LastN <= applied; i++ {
		total -= files[i].Size
		upto = files[i].LastN
	}
	return upto
}
