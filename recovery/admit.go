package recovery

import (
	"context"
	"fmt"

	"cohort/internal/mysqld"
)

// admit refuses a mysqld that belongs to another member of the group, before
// anything on it is touched: two members would kill each other's sessions. A
// member that its own log has never heard of has no earlier life to fence, so it
// first learns, from a majority, who the members are; any other one must fence
// what it left behind also without a majority.
func (l *life) admit(ctx context.Context) error {
	o := &l.m.opt
	if _, known := o.Node.View().Member(o.ReplicaID); !known {
		if !o.Bootstrap {
			if err := l.waitFounded(ctx); err != nil {
				return err
			}
		}
		if _, err := o.Node.ReadIndex(ctx); err != nil {
			return fmt.Errorf("learn who the members are: %w", err)
		}
	}
	if other, ok := o.Node.View().MemberByUUID(l.id.ServerUUID); ok && other.ID != o.ReplicaID {
		return fmt.Errorf("%w: the server with server_uuid %s belongs to member %d of the group already", mysqld.ErrSettings, l.id.ServerUUID, other.ID)
	}
	return nil
}
