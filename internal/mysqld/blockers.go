package mysqld

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Blocker is what keeps a waiting thread from a lock.
type Blocker struct {
	// Session is the processlist id of the client's session that is in the way, 0
	// where none is: mysqld's own threads, and prepared transactions without a
	// session.
	Session uint64
	// Prepared: it is a prepared transaction, which only its verdict may end.
	Prepared bool
	// User and Statement tell who it is and what it runs or ran last.
	User, Statement string
	// Lock describes the lock that it has.
	Lock string
	// Backup: it is a global read lock or a backup lock, which somebody has taken to
	// hold up writes or DDL.
	Backup bool
}

// ApplierThreads are the performance_schema threads of the feed channel's workers.
func ApplierThreads(ctx context.Context, q Querier) ([]uint64, error) {
	return ids(ctx, q, `SELECT THREAD_ID FROM performance_schema.replication_applier_status_by_worker
		WHERE CHANNEL_NAME = '`+FeedChannel+`' AND THREAD_ID IS NOT NULL`)
}

// GlobalReadLocks are the sessions that have a global read lock.
func GlobalReadLocks(ctx context.Context, q Querier) ([]Blocker, error) {
	return blockers(ctx, q, `SELECT t.PROCESSLIST_ID s, t.PROCESSLIST_USER u, t.PROCESSLIST_HOST ho,
		'GLOBAL' type, '' obj, 'INTENTION_EXCLUSIVE' want, h.LOCK_TYPE have, h.LOCK_STATUS st, 'NO' prep, t.PROCESSLIST_INFO info
		FROM performance_schema.metadata_locks h JOIN performance_schema.threads t ON t.THREAD_ID = h.OWNER_THREAD_ID
		WHERE h.OBJECT_TYPE = 'GLOBAL' AND h.LOCK_TYPE = 'SHARED' AND h.LOCK_STATUS = 'GRANTED' AND t.PROCESSLIST_ID <> CONNECTION_ID()`)
}

// clientThread is how the threads of clients' sessions and events are called.
const clientThread = `(t.NAME = 'thread/sql/one_connection' OR t.NAME LIKE 'thread/thread_pool/%%' OR t.NAME = 'thread/sql/event_worker')`

// rowBlockers finds the holders of row and table locks of InnoDB. Who only queues
// for such a lock is not in the way until it has it. A detached prepared
// transaction is one without a session; the thread that took its locks is no
// holder any more, so the transaction is asked and not the lock.
const rowBlockers = `SELECT t.PROCESSLIST_ID s, t.PROCESSLIST_USER u, t.PROCESSLIST_HOST ho,
	CONCAT(h.LOCK_TYPE, ' lock') type, CONCAT(h.OBJECT_SCHEMA, '.', h.OBJECT_NAME, IFNULL(CONCAT(' ', h.INDEX_NAME, ' (', h.LOCK_DATA, ')'), '')) obj,
	'' want, h.LOCK_MODE have, h.LOCK_STATUS st,
	IF(x.trx_mysql_thread_id = 0 OR e.XA_STATE = 'PREPARED', 'YES', 'NO') prep, IFNULL(t.PROCESSLIST_INFO, q.SQL_TEXT) info
	FROM performance_schema.data_lock_waits w
	JOIN performance_schema.data_locks h ON h.ENGINE_LOCK_ID = w.BLOCKING_ENGINE_LOCK_ID AND h.ENGINE = w.ENGINE
	JOIN information_schema.INNODB_TRX x ON x.trx_id = w.BLOCKING_ENGINE_TRANSACTION_ID
	LEFT JOIN performance_schema.threads t ON t.PROCESSLIST_ID = x.trx_mysql_thread_id AND ` + clientThread + `
	LEFT JOIN performance_schema.events_transactions_current e ON e.THREAD_ID = t.THREAD_ID AND e.STATE = 'ACTIVE'
	LEFT JOIN performance_schema.events_statements_current q ON q.THREAD_ID = t.THREAD_ID AND q.NESTING_EVENT_LEVEL = 0
	WHERE h.LOCK_STATUS = 'GRANTED' AND w.REQUESTING_THREAD_ID IN (%s)`

// metaBlockers pairs metadata locks that are waited for with all others on the same
// object; which of them are in the way, conflicts says. The metadata locks of a
// detached prepared transaction are shown with the thread that prepared it, as long
// as that has begun no other.
const metaBlockers = `SELECT t.PROCESSLIST_ID s, t.PROCESSLIST_USER u, t.PROCESSLIST_HOST ho,
	h.OBJECT_TYPE type, CONCAT_WS('.', NULLIF(h.OBJECT_SCHEMA, ''), NULLIF(h.OBJECT_NAME, '')) obj, p.LOCK_TYPE want, h.LOCK_TYPE have, h.LOCK_STATUS st,
	IF(e.XA_STATE = 'PREPARED', 'YES', 'NO') prep, IFNULL(t.PROCESSLIST_INFO, q.SQL_TEXT) info
	FROM performance_schema.metadata_locks p
	JOIN performance_schema.metadata_locks h ON h.OBJECT_TYPE = p.OBJECT_TYPE
		AND h.OBJECT_SCHEMA <=> p.OBJECT_SCHEMA AND h.OBJECT_NAME <=> p.OBJECT_NAME AND h.OWNER_THREAD_ID <> p.OWNER_THREAD_ID
	LEFT JOIN performance_schema.threads t ON t.THREAD_ID = h.OWNER_THREAD_ID AND ` + clientThread + `
	LEFT JOIN performance_schema.events_transactions_current e ON e.THREAD_ID = t.THREAD_ID AND e.STATE = 'ACTIVE'
	LEFT JOIN performance_schema.events_statements_current q ON q.THREAD_ID = t.THREAD_ID AND q.NESTING_EVENT_LEVEL = 0
	WHERE p.LOCK_STATUS = 'PENDING' AND p.OWNER_THREAD_ID IN (%s)`

// Blockers finds what the given threads wait for: row locks, locks of tables,
// metadata locks. A session may be in it more than once.
//
// It must not be asked again within BlockersSpacing.
func Blockers(ctx context.Context, q Querier, waiting []uint64) ([]Blocker, error) {
	if len(waiting) == 0 {
		return nil, nil
	}
	in := strings.Trim(strings.ReplaceAll(fmt.Sprint(waiting), " ", ","), "[]")
	rows, err := blockers(ctx, q, fmt.Sprintf(rowBlockers, in))
	if err != nil {
		return nil, err
	}
	meta, err := blockers(ctx, q, fmt.Sprintf(metaBlockers, in))
	return append(rows, meta...), err
}

func blockers(ctx context.Context, q Querier, query string) ([]Blocker, error) {
	all, err := allRows(ctx, q, query)
	if err != nil {
		return nil, fmt.Errorf("find who holds a lock: %w", err)
	}
	var list, queued []Blocker
	for _, r := range all {
		b := Blocker{User: r["u"] + "@" + r["ho"], Statement: clip(r["info"]), Prepared: r["prep"] == "YES",
			Lock: strings.TrimSpace(strings.Join([]string{r["have"], r["type"], r["obj"]}, " "))}
		_, _ = fmt.Sscan(r["s"], &b.Session) // a number by the column's type; NULL is 0
		switch {
		case r["want"] == "": // InnoDB has paired them
		case !conflicts(r["type"], r["want"], r["have"]):
			continue
		}
		switch r["type"] {
		case "GLOBAL", "COMMIT", "BACKUP LOCK":
			b.Backup = true
		}
		if r["st"] == "GRANTED" {
			list = append(list, b)
		} else if queues(r["have"]) {
			b.Lock = "waits for " + b.Lock
			queued = append(queued, b)
		}
	}
	if len(list) == 0 {
		// Nobody has what is wanted: who asked first for more is served first.
		return queued, nil
	}
	return list, nil
}

// BlockersSpacing is the least time between two looks: InnoDB makes its list of
// transactions anew only when nobody has read it for 0.1 s.
const BlockersSpacing = 150 * time.Millisecond

// maxStatement is how much of a statement a Blocker tells.
const maxStatement = 200

func clip(s string) string {
	if len(s) > maxStatement {
		return strings.ToValidUTF8(s[:maxStatement], "") + "…"
	}
	return s
}

// scoped are the kinds of metadata locks that know only intention, shared and
// exclusive ones.
var scoped = []string{"GLOBAL", "COMMIT", "SCHEMA", "TABLESPACE", "BACKUP LOCK", "RESOURCE_GROUPS", "FOREIGN KEY", "CHECK CONSTRAINT"}

// objectConflicts are, for each metadata lock on an object, the locks that keep it
// waiting (sql/mdl.cc).
var objectConflicts = map[string][]string{
	"SHARED":                {"EXCLUSIVE"},
	"SHARED_HIGH_PRIO":      {"EXCLUSIVE"},
	"SHARED_READ":           {"SHARED_NO_READ_WRITE", "EXCLUSIVE"},
	"SHARED_WRITE":          {"SHARED_READ_ONLY", "SHARED_NO_WRITE", "SHARED_NO_READ_WRITE", "EXCLUSIVE"},
	"SHARED_WRITE_LOW_PRIO": {"SHARED_READ_ONLY", "SHARED_NO_WRITE", "SHARED_NO_READ_WRITE", "EXCLUSIVE"},
	"SHARED_UPGRADABLE":     {"SHARED_UPGRADABLE", "SHARED_NO_WRITE", "SHARED_NO_READ_WRITE", "EXCLUSIVE"},
	"SHARED_READ_ONLY":      {"SHARED_WRITE", "SHARED_WRITE_LOW_PRIO", "SHARED_NO_READ_WRITE", "EXCLUSIVE"},
	"SHARED_NO_WRITE": {"SHARED_WRITE", "SHARED_WRITE_LOW_PRIO", "SHARED_UPGRADABLE", "SHARED_NO_WRITE", "SHARED_NO_READ_WRITE",
		"EXCLUSIVE"},
	"SHARED_NO_READ_WRITE": {"SHARED_READ", "SHARED_WRITE", "SHARED_WRITE_LOW_PRIO", "SHARED_UPGRADABLE", "SHARED_READ_ONLY",
		"SHARED_NO_WRITE", "SHARED_NO_READ_WRITE", "EXCLUSIVE"},
}

// conflicts says whether a metadata lock of type have keeps one of type want
// waiting.
func conflicts(object, want, have string) bool {
	if slices.Contains(scoped, object) {
		switch want {
		case "INTENTION_EXCLUSIVE":
			return have == "SHARED" || have == "EXCLUSIVE"
		case "SHARED":
			return have == "INTENTION_EXCLUSIVE" || have == "EXCLUSIVE"
		}
		return true
	}
	if want == "EXCLUSIVE" {
		return true
	}
	return slices.Contains(objectConflicts[want], have)
}

// queues says whether a metadata lock that is waited for keeps later ones waiting.
func queues(have string) bool {
	switch have {
	case "SHARED", "SHARED_NO_WRITE", "SHARED_NO_READ_WRITE", "EXCLUSIVE":
		return true
	}
	return false
}
