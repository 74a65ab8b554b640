package recovery

import (
	"context"
	"errors"
	"fmt"

	"cohort/consensus"
	"cohort/internal/mysqld"
)

// ErrExtra means that this mysqld holds transactions that the group does not
// have: it cannot become a member as it is.
var ErrExtra = fmt.Errorf("%w: extra transactions", ErrDiverged)

// enter sees to it that this member has a place in the group's log.
func (l *life) enter(ctx context.Context) error {
	o := &l.m.opt
	settings := o.Settings + fmt.Sprintf("lower_case_table_names=%d\ndefault_table_encryption=%s\n",
		l.id.LowerCaseTableNames, onOff(l.id.DefaultTableEncryption))
	l.settings = settings
	executed, err := mysqld.GroupExecuted(ctx, l.conn, o.GroupName)
	if err != nil {
		return err
	}
	return o.Node.Enter(ctx, consensus.Entrance{Executed: executed.Last(),
		Bootstrap: o.Bootstrap, UUID: l.id.ServerUUID, ServerID: uint64(l.id.ServerID),
		Settings: settings, Check: l.fits})
}

func onOff(v bool) string {
	if v {
		return "ON"
	}
	return "OFF"
}

// fits compares what mysqld executed with what the group has, before the group
// changes for this member: it must hold what the founder brought, and, if it comes
// for the first time, nothing besides that and the group's own transactions. A
// member that was there before may have statements that the group has yet to
// order.
func (l *life) fits(ctx context.Context, base string, known bool) error {
	var lacks, extra string
	group := l.m.opt.GroupName
	err := l.conn.QueryRowContext(ctx, `SELECT GTID_SUBTRACT(?, @@GLOBAL.gtid_executed),
		GTID_SUBTRACT(GTID_SUBTRACT(@@GLOBAL.gtid_executed, ?), ?)`, base, base, group+":1-9223372036854775806").Scan(&lacks, &extra)
	switch {
	case err != nil:
		return fmt.Errorf("compare gtid_executed with the group's: %w", err)
	case lacks != "":
		return fmt.Errorf("%w: it lacks transactions that the founding member brought (%s); provision it from a member's data", ErrDiverged, lacks)
	case extra != "" && !known:
		return fmt.Errorf("%w: %s; provision this server from a member's data, or remove what it ran and %s", ErrExtra, extra, l.id.Number.ResetBinlogs())
	}
	return nil
}

// Explain says what to do about why a member could not join, "" where the error
// says it.
func Explain(err error) string {
	for _, x := range []struct {
		is  error
		fix string
	}{
		{consensus.ErrAddress, "free the port of group_replication_local_address or give another one, and a name that resolves to an address of this machine"},
		{consensus.ErrOtherGroup, "give the same group_replication_group_name as the seeds have, or other seeds"},
		{consensus.ErrOtherSettings, "make this member's settings equal to the group's"},
		{consensus.ErrOtherHistory, "empty this member's cohort_data_dir and provision its mysqld from a member's data"},
		{consensus.ErrDuplicateUUID, "remove auto.cnf from the data directory of the copied mysqld and restart it"},
		{consensus.ErrDuplicateServerID, "give this mysqld a server_id that no other member has"},
		{consensus.ErrDuplicateAddress, "give this member a group_replication_local_address of its own"},
		{consensus.ErrGroupFull, "stop a member first: a group has at most 9"},
		{consensus.ErrPresent, "wait until the group has noticed that the earlier process of this member is gone"},
		{consensus.ErrNoSeed, "check that group_replication_group_seeds names members that are ONLINE, that the names resolve and the addresses can be reached"},
		{consensus.ErrNotAdmitted, "try again"},
		{consensus.ErrForceUnfinished, "set group_replication_force_members again, here or on another member that was listed"},
		{mysqld.ErrSettings, "change the settings named"},
		{ErrDiverged, "provision this server from a member's data"},
	} {
		if errors.Is(err, x.is) {
			return x.fix
		}
	}
	return ""
}
