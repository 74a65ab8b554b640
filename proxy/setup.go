package proxy

import (
	"fmt"
	"strings"

	"cohort/internal/mysqlversion"
	"cohort/internal/wire"
	"cohort/sqlparse"
)

// followed are the variables that a session follows by its system variable
// tracker.
//
// The list is explicit because "*" makes the server tell the statement_id with
// every reply. Variables that are not in it are asked for when a SET names them.
var followed = [...]string{"sql_mode", "completion_type", "character_set_client", "character_set_results",
	"session_track_gtids", "session_track_transaction_info", "sql_log_bin",
	"character_set_connection", "collation_connection", "time_zone", "autocommit", "transaction_isolation", "transaction_read_only",
	"foreign_key_checks", "unique_checks", "sql_safe_updates", "sql_select_limit", "sql_notes", "sql_warnings", "sql_auto_is_null",
	"sql_big_selects", "sql_quote_show_create", "group_concat_max_len", "wait_timeout", "interactive_timeout", "net_read_timeout",
	"net_write_timeout", "lock_wait_timeout", "innodb_lock_wait_timeout", "max_execution_time", "optimizer_switch", "timestamp",
	"last_insert_id", "lc_messages", "lc_time_names", "div_precision_increment", "auto_increment_increment", "auto_increment_offset",
	"default_storage_engine", "tmp_table_size", "max_heap_table_size", "sort_buffer_size", "join_buffer_size",
	"cte_max_recursion_depth", "explicit_defaults_for_timestamp", "default_week_format", "sql_require_primary_key"}

// ownTrackers turns on what a session lives by.
const ownTrackers = "SET SESSION session_track_gtids=OWN_GTID, SESSION session_track_transaction_info=STATE, SESSION session_track_schema=ON, " +
	"SESSION session_track_state_change=ON, SESSION session_track_system_variables='"

// follow adds followed to a list of variables; the server refuses duplicates.
func follow(list string) string {
	if list == "*" {
		return list
	}
	for _, f := range followed {
		if !listed(list, f) {
			if list != "" {
				list += ","
			}
			list += f
		}
	}
	return list
}

// listed reports whether a comma-separated list names v.
func listed(list, v string) bool {
	for x := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(x), v) {
			return true
		}
	}
	return false
}

// setup turns on the trackers a session lives by, and learns what they tell only
// when it changes. It runs after the login, COM_CHANGE_USER and
// COM_RESET_CONNECTION.
func (s *session) setup() error {
	rs, err := s.exec("SELECT @@SESSION.sql_mode, @@SESSION.completion_type, @@SESSION.character_set_client, @@SESSION.session_track_gtids, " +
		"@@SESSION.session_track_transaction_info, @@SESSION.session_track_system_variables, " +
		"CONCAT(@@SESSION.session_track_schema, ' ', @@SESSION.session_track_state_change, ' ', @@SESSION.sql_log_bin), CONCAT('', DATABASE())")
	if err != nil {
		return err
	}
	if rs[0].Err != nil {
		return fmt.Errorf("proxy: set up a session: %w", rs[0].Err)
	}
	v := &rs[0]
	s.apply("sql_mode", v.Str(0, 0))
	s.apply("completion_type", v.Str(0, 1))
	s.apply("character_set_client", v.Str(0, 2))
	s.shows = 0
	s.show(wire.TrackGTIDs, v.Str(0, 3) != "OFF")
	s.showTx(v.Str(0, 4))
	s.shownVars = v.Str(0, 5)
	on := strings.Fields(v.Str(0, 6))
	s.show(wire.TrackSchema, len(on) > 0 && on[0] == "1")
	s.show(wire.TrackStateChange, len(on) > 1 && on[1] == "1")
	if s.unlogged = len(on) < 3 || on[2] != "1"; s.unlogged { // by init_connect, for instance
		return unloggedError()
	}
	s.schema = v.Str(0, 7)
	s.collation = uint16(s.r.Login.Charset)
	s.followed = follow(s.shownVars)
	if rs, err = s.exec(ownTrackers + s.followed + "'"); err != nil {
		return err
	}
	if rs[0].Err != nil {
		return fmt.Errorf("proxy: set up a session: %w", rs[0].Err)
	}
	s.status = rs[0].OK.Status
	s.mode.NoBackslashEscapes = s.status&wire.StatusNoBackslashEscapes != 0
	s.tx.state = ""
	s.untracked = false
	s.mode.Version = int(mysqlversion.Parse(s.r.Backend.Greeting.ServerVersion))
	return nil
}

// retrack turns the trackers on again that a routine turned off. A SET of the
// client's own goes through trackersChanged.
func (s *session) retrack() error {
	rs, err := s.exec(ownTrackers + s.followed + "'")
	if err != nil {
		return err
	}
	if rs[0].Err != nil {
		return backendError(rs[0].Err)
	}
	s.untracked = false
	return nil
}

func (s *session) show(t wire.TrackerType, on bool) {
	if on {
		s.shows |= t.Set()
	} else {
		s.shows &^= t.Set()
	}
}

func (s *session) showTx(v string) {
	s.show(wire.TrackTxState, v != "OFF")
	s.show(wire.TrackTxCharacteristics, v == "CHARACTERISTICS")
}

// trackersChanged follows a client's own SET of session_track variables: what it
// assigned decides what it is shown, and the server goes on telling us all.
func (s *session) trackersChanged() error {
	rs, err := s.exec("SELECT @@SESSION.session_track_gtids, @@SESSION.session_track_transaction_info, " +
		"@@SESSION.session_track_system_variables, CONCAT(@@SESSION.session_track_schema, ' ', @@SESSION.session_track_state_change)")
	if err != nil {
		return s.lostInTx(err)
	}
	if rs[0].Err != nil {
		return nil
	}
	v := &rs[0]
	var set []string
	// What still has our value was not assigned, or assigned what we need.
	if g := v.Str(0, 0); g != "OWN_GTID" || s.named("session_track_gtids") {
		s.show(wire.TrackGTIDs, g != "OFF")
		if g != "OWN_GTID" {
			set = append(set, "SESSION session_track_gtids=OWN_GTID")
		}
	}
	if t := v.Str(0, 1); t != "STATE" || s.named("session_track_transaction_info") {
		s.showTx(t)
		if t == "OFF" {
			set = append(set, "SESSION session_track_transaction_info=STATE")
		}
	}
	if l := v.Str(0, 2); l != s.followed || s.named("session_track_system_variables") {
		s.shownVars, s.followed = l, follow(l)
		if l != s.followed {
			set = append(set, "SESSION session_track_system_variables='"+s.followed+"'")
		}
	}
	on := strings.Fields(v.Str(0, 3))
	if len(on) == 2 {
		if on[0] != "1" || s.named("session_track_schema") {
			s.show(wire.TrackSchema, on[0] == "1")
		}
		if on[0] != "1" {
			set = append(set, "SESSION session_track_schema=ON")
		}
		if on[1] != "1" || s.named("session_track_state_change") {
			s.show(wire.TrackStateChange, on[1] == "1")
		}
		if on[1] != "1" {
			set = append(set, "SESSION session_track_state_change=ON")
		}
	}
	if len(set) == 0 {
		s.untracked = false
		return nil
	}
	if rs, err = s.exec("SET " + strings.Join(set, ", ")); err != nil {
		return s.lostInTx(err)
	}
	if rs[0].Err != nil {
		return backendError(rs[0].Err)
	}
	s.untracked = false
	return nil
}

// named reports whether the present command's text mentions a variable.
func (s *session) named(variable string) bool {
	return strings.Contains(strings.ToLower(string(s.cmd.Payload)), variable)
}

// sysVar follows a variable of the session that was changed.
func (s *session) sysVar(name, value string) {
	s.kept.setVar(name, value)
	s.apply(name, value)
}

// apply draws the conclusions from a variable's value.
func (s *session) apply(name, value string) {
	switch name {
	case "sql_mode":
		s.mode.ANSIQuotes = strings.Contains(","+value+",", ",ANSI_QUOTES,")
	case "session_track_gtids":
		s.untracked = s.untracked || value != "OWN_GTID"
	case "session_track_transaction_info":
		if value == "OFF" {
			s.untracked, s.tx.blind = true, true
		}
	case "sql_log_bin":
		s.unlogged = value == "OFF" || value == "0"
	case "completion_type":
		s.completion = value
	case "character_set_client":
		s.mode.Charset = sqlparse.CharsetByName(value)
	case "character_set_results":
		s.collation = defaultCollation(value)
	}
}

// defaultCollation is the collation id that columns in a character set are
// described with; utf8mb4's for those that are rare.
func defaultCollation(charset string) uint16 {
	switch charset {
	case "utf8mb3", "utf8":
		return 33
	case "latin1":
		return 8
	case "ascii":
		return 11
	case "binary":
		return 63
	case "gbk":
		return 28
	case "sjis":
		return 13
	case "big5":
		return 1
	}
	return 255
}

// showsVar: the client's own session_track_system_variables names it.
func (s *session) showsVar(name string) bool {
	return s.shownVars == "*" || listed(s.shownVars, name)
}
