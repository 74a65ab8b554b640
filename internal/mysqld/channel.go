package mysqld

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// FeedChannel is the replication channel through which a member's mysqld gets
// the group's transactions from the member's feed.
const FeedChannel = "cohort_applier"

// ErrApplier is wrapped by ApplierStatus.Err.
var ErrApplier = errors.New("mysqld's applier stopped")

// ErrChannelStopped is wrapped by ApplierStatus.Err when a part of the channel
// does not run although nothing failed in applying.
var ErrChannelStopped = errors.New("mysqld's replication channel was stopped")

// FeedSource says where the feed listens.
type FeedSource struct {
	Host           string
	Port           int
	User, Password string
	// Heartbeat is the longest silence of the feed, in steps of 1 ms;
	// default 1 s.
	Heartbeat time.Duration
	// GTIDOnly keeps no positions beside GTIDs, which saves the applier a row
	// update per transaction.
	GTIDOnly bool
}

const channelClause = " FOR CHANNEL '" + FeedChannel + "'"

// ConfigureFeedChannel points the channel to the feed. Its threads must be
// stopped. Connects are retried every second for ever, without TLS: the feed
// listens on the loopback interface.
func ConfigureFeedChannel(ctx context.Context, q Querier, s FeedSource) error {
	if s.Heartbeat == 0 {
		s.Heartbeat = time.Second
	}
	for _, v := range []string{s.Host, s.User, s.Password} {
		if !quotable(v) {
			return fmt.Errorf("configure channel %s: backslash in host, user or password", FeedChannel)
		}
	}
	opts := []string{
		"SOURCE_HOST = " + text(s.Host), fmt.Sprintf("SOURCE_PORT = %d", s.Port),
		"SOURCE_USER = " + text(s.User), "SOURCE_PASSWORD = " + text(s.Password),
		"SOURCE_AUTO_POSITION = 1", "SOURCE_SSL = 0", "GET_SOURCE_PUBLIC_KEY = 0",
		"SOURCE_CONNECT_RETRY = 1", "SOURCE_RETRY_COUNT = 4294967295",
		fmt.Sprintf("SOURCE_HEARTBEAT_PERIOD = %.3f", s.Heartbeat.Seconds()),
		// Rows only: a statement that could change data differently here is
		// refused instead of applied. GTID_ONLY requires it as well.
		"REQUIRE_ROW_FORMAT = 1",
	}
	only := 0
	if s.GTIDOnly {
		only = 1
	}
	opts = append(opts, fmt.Sprintf("GTID_ONLY = %d", only))
	if _, err := q.ExecContext(ctx, "CHANGE REPLICATION SOURCE TO "+strings.Join(opts, ", ")+channelClause); err != nil {
		return fmt.Errorf("configure channel %s: %w", FeedChannel, err)
	}
	return nil
}

const (
	errChannelMissing = 3074 // ER_REPLICA_CHANNEL_DOES_NOT_EXIST
)

// StartFeedChannel starts receiver and applier; they may run already.
func StartFeedChannel(ctx context.Context, q Querier) error {
	return channelExec(ctx, q, "START REPLICA"+channelClause)
}

// StopFeedChannel stops receiver and applier and returns when they have
// stopped. A channel that does not exist is no error.
func StopFeedChannel(ctx context.Context, q Querier) error {
	return ignoreMissing(channelExec(ctx, q, "STOP REPLICA"+channelClause))
}

// ReconnectFeed makes the receiver connect anew at once, instead of after its
// own retry pause.
func ReconnectFeed(ctx context.Context, q Querier) error {
	if err := channelExec(ctx, q, "STOP REPLICA IO_THREAD"+channelClause); err != nil {
		return err
	}
	return channelExec(ctx, q, "START REPLICA IO_THREAD"+channelClause)
}

// ResetFeedChannel forgets the relay log of the stopped channel, so that what
// it holds is fetched again; the source's address is kept. A channel that does
// not exist is no error.
func ResetFeedChannel(ctx context.Context, q Querier) error {
	return ignoreMissing(channelExec(ctx, q, "RESET REPLICA"+channelClause))
}

// DropFeedChannel removes the stopped channel.
func DropFeedChannel(ctx context.Context, q Querier) error {
	return ignoreMissing(channelExec(ctx, q, "RESET REPLICA ALL"+channelClause))
}

// StopReplication stops the threads of every channel.
func StopReplication(ctx context.Context, q Querier) error {
	return channelExec(ctx, q, "STOP REPLICA")
}

func channelExec(ctx context.Context, q Querier, s string) error {
	if _, err := q.ExecContext(ctx, s); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if Errno(err) == errChannelMissing {
		return nil
	}
	return err
}

// ApplierStatus is the state of the feed channel.
type ApplierStatus struct {
	// Exists says whether the channel is configured.
	Exists bool
	// ReceiverState is ON, OFF or CONNECTING; ApplierState ON or OFF.
	ReceiverState, ApplierState string
	// Received is the GTID set that reached the relay log.
	Received string
	// ReceiverErrno and ApplierErrno are 0 without an error.
	ReceiverErrno, ApplierErrno     uint16
	ReceiverMessage, ApplierMessage string
	// GTID is what the failed worker applied, if it says so.
	GTID string
}

// Err returns an error that wraps ErrApplier if the applier gave up, and
// ErrChannelStopped if someone stopped the channel, or its receiver ended for
// good.
// A receiver that cannot connect is not one: it retries.
func (s ApplierStatus) Err() error {
	if s.ApplierErrno == 0 && s.Exists && (s.ApplierState == "OFF" || s.ReceiverState == "OFF") {
		return fmt.Errorf("%w: receiver %s (error %d: %s), applier %s", ErrChannelStopped,
			s.ReceiverState, s.ReceiverErrno, s.ReceiverMessage, s.ApplierState)
	}
	if s.ApplierErrno == 0 {
		return nil
	}
	return fmt.Errorf("%w: error %d at %s: %s", ErrApplier, s.ApplierErrno, s.GTID, s.ApplierMessage)
}

// ReadApplierStatus reads the feed channel's state from performance_schema.
func ReadApplierStatus(ctx context.Context, q Querier) (ApplierStatus, error) {
	var s ApplierStatus
	c, err := firstRow(ctx, q, `SELECT SERVICE_STATE, RECEIVED_TRANSACTION_SET, LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE
		FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = ?`, FeedChannel)
	if err != nil || c == nil {
		return s, err
	}
	s.Exists = true
	s.ReceiverState, s.Received = c["SERVICE_STATE"], strings.ReplaceAll(c["RECEIVED_TRANSACTION_SET"], "\n", "")
	s.ReceiverErrno, s.ReceiverMessage = atoi16(c["LAST_ERROR_NUMBER"]), c["LAST_ERROR_MESSAGE"]
	a, err := firstRow(ctx, q, "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status WHERE CHANNEL_NAME = ?", FeedChannel)
	if err != nil {
		return s, err
	}
	s.ApplierState = a["SERVICE_STATE"]
	// The worker's error is the cause; the coordinator's only points to it.
	w, err := firstRow(ctx, q, `SELECT n, m, g FROM (
		SELECT 1 o, LAST_ERROR_NUMBER n, LAST_ERROR_MESSAGE m, APPLYING_TRANSACTION g
			FROM performance_schema.replication_applier_status_by_worker WHERE CHANNEL_NAME = ? AND LAST_ERROR_NUMBER <> 0
		UNION ALL SELECT 2, LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, PROCESSING_TRANSACTION
			FROM performance_schema.replication_applier_status_by_coordinator WHERE CHANNEL_NAME = ? AND LAST_ERROR_NUMBER <> 0
		) e ORDER BY o LIMIT 1`, FeedChannel, FeedChannel)
	if err != nil {
		return s, err
	}
	if w != nil {
		s.ApplierErrno, s.ApplierMessage, s.GTID = atoi16(w["n"]), w["m"], w["g"]
	}
	return s, nil
}

func atoi16(v string) uint16 {
	var n uint16
	_, _ = fmt.Sscan(v, &n) // a number by the column's type; NULL is 0
	return n
}
