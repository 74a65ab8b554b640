package sqlparse

// keyword returns the constant for an upper-case word the classifier knows,
// so that no string is allocated; "" for any other word.
func keyword(b []byte) string {
	switch string(b) {
	case "AGGREGATE":
		return "AGGREGATE"
	case "ALTER":
		return "ALTER"
	case "ANALYZE":
		return "ANALYZE"
	case "BEGIN":
		return "BEGIN"
	case "CACHE":
		return "CACHE"
	case "CALL":
		return "CALL"
	case "CASE":
		return "CASE"
	case "CHANGE":
		return "CHANGE"
	case "CHECK":
		return "CHECK"
	case "CHECKSUM":
		return "CHECKSUM"
	case "CLONE":
		return "CLONE"
	case "COMMIT":
		return "COMMIT"
	case "COUNT":
		return "COUNT"
	case "CREATE":
		return "CREATE"
	case "DATA":
		return "DATA"
	case "DEALLOCATE":
		return "DEALLOCATE"
	case "DEFINER":
		return "DEFINER"
	case "DELETE":
		return "DELETE"
	case "DESC":
		return "DESC"
	case "DESCRIBE":
		return "DESCRIBE"
	case "DO":
		return "DO"
	case "DROP":
		return "DROP"
	case "ELSE":
		return "ELSE"
	case "ELSEIF":
		return "ELSEIF"
	case "END":
		return "END"
	case "ERRORS":
		return "ERRORS"
	case "EVENT":
		return "EVENT"
	case "EXECUTE":
		return "EXECUTE"
	case "EXPLAIN":
		return "EXPLAIN"
	case "FLUSH":
		return "FLUSH"
	case "FUNCTION":
		return "FUNCTION"
	case "GET":
		return "GET"
	case "GRANT":
		return "GRANT"
	case "GROUP_REPLICATION":
		return "GROUP_REPLICATION"
	case "HANDLER":
		return "HANDLER"
	case "HELP":
		return "HELP"
	case "IF":
		return "IF"
	case "IMPORT":
		return "IMPORT"
	case "INDEX":
		return "INDEX"
	case "INSERT":
		return "INSERT"
	case "INSTALL":
		return "INSTALL"
	case "INSTANCE":
		return "INSTANCE"
	case "JOIN":
		return "JOIN"
	case "KILL":
		return "KILL"
	case "LOAD":
		return "LOAD"
	case "LOCK":
		return "LOCK"
	case "LOOP":
		return "LOOP"
	case "ONE":
		return "ONE"
	case "OPTIMIZE":
		return "OPTIMIZE"
	case "PREPARE":
		return "PREPARE"
	case "PROCEDURE":
		return "PROCEDURE"
	case "PURGE":
		return "PURGE"
	case "READ":
		return "READ"
	case "RECOVER":
		return "RECOVER"
	case "RELEASE":
		return "RELEASE"
	case "RENAME":
		return "RENAME"
	case "REPAIR":
		return "REPAIR"
	case "REPEAT":
		return "REPEAT"
	case "REPLACE":
		return "REPLACE"
	case "RESET":
		return "RESET"
	case "RESIGNAL":
		return "RESIGNAL"
	case "RESTART":
		return "RESTART"
	case "RESUME":
		return "RESUME"
	case "REVOKE":
		return "REVOKE"
	case "ROLE":
		return "ROLE"
	case "ROLLBACK":
		return "ROLLBACK"
	case "SAVEPOINT":
		return "SAVEPOINT"
	case "SELECT":
		return "SELECT"
	case "SET":
		return "SET"
	case "SHOW":
		return "SHOW"
	case "SHUTDOWN":
		return "SHUTDOWN"
	case "SIGNAL":
		return "SIGNAL"
	case "START":
		return "START"
	case "STOP":
		return "STOP"
	case "SUSPEND":
		return "SUSPEND"
	case "TABLE":
		return "TABLE"
	case "TABLES":
		return "TABLES"
	case "TEMPORARY":
		return "TEMPORARY"
	case "THEN":
		return "THEN"
	case "TRANSACTION":
		return "TRANSACTION"
	case "TRIGGER":
		return "TRIGGER"
	case "TRUNCATE":
		return "TRUNCATE"
	case "UNINSTALL":
		return "UNINSTALL"
	case "UNLOCK":
		return "UNLOCK"
	case "UPDATE":
		return "UPDATE"
	case "USE":
		return "USE"
	case "USER":
		return "USER"
	case "VALUES":
		return "VALUES"
	case "WARNINGS":
		return "WARNINGS"
	case "WHILE":
		return "WHILE"
	case "WITH":
		return "WITH"
	case "XA":
		return "XA"
	case "XML":
		return "XML"
	case "NAMES":
		return "NAMES"
	case "CHARACTER":
		return "CHARACTER"
	case "CHARSET":
		return "CHARSET"
	case "PASSWORD":
		return "PASSWORD"
	case "DEFAULT":
		return "DEFAULT"
	case "RESOURCE":
		return "RESOURCE"
	case "GLOBAL":
		return "GLOBAL"
	case "SESSION":
		return "SESSION"
	case "LOCAL":
		return "LOCAL"
	case "PERSIST":
		return "PERSIST"
	case "PERSIST_ONLY":
		return "PERSIST_ONLY"
	}
	return ""
}

// isBuiltin reports whether a word before a parenthesis is surely no stored
// function: a keyword of the grammar or one of the functions in common use.
func isBuiltin(b []byte) bool {
	if len(b) > 20 {
		return false
	}
	var buf [20]byte
	n := copy(buf[:], b)
	for i := 0; i < n; i++ {
		if c := buf[i]; c >= 'a' && c <= 'z' {
			buf[i] = c - 'a' + 'A'
		}
	}
	switch string(buf[:n]) {
	case "IN", "VALUES", "VALUE", "AND", "OR", "NOT", "ON", "USING", "AS", "SELECT", "WHERE", "HAVING", "BY", "FROM",
		"JOIN", "EXISTS", "ANY", "ALL", "SOME", "CASE", "WHEN", "THEN", "ELSE", "OVER", "SET", "INTO", "KEY", "INDEX",
		"PRIMARY", "UNIQUE", "REFERENCES", "CHECK", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "BETWEEN", "LIKE", "XOR", "DIV", "MOD",
		"COUNT", "SUM", "MIN", "MAX", "AVG", "IF", "IFNULL", "NULLIF", "COALESCE", "CONCAT", "CONCAT_WS", "LEFT", "RIGHT",
		"LENGTH", "CHAR_LENGTH", "SUBSTRING", "SUBSTR", "TRIM", "LOWER", "UPPER", "NOW", "CURRENT_TIMESTAMP", "SYSDATE",
		"UNIX_TIMESTAMP", "FROM_UNIXTIME", "DATE", "TIME", "YEAR", "MONTH", "DAY", "DATE_ADD", "DATE_SUB", "DATE_FORMAT",
		"CAST", "CONVERT", "CHAR", "VARCHAR", "DECIMAL", "BINARY", "INT", "ROUND", "FLOOR", "CEIL", "ABS", "RAND",
		"LAST_INSERT_ID", "FOUND_ROWS", "ROW_COUNT", "DATABASE", "SCHEMA", "USER", "CURRENT_USER", "VERSION",
		"CONNECTION_ID", "UUID", "MD5", "SHA1", "SHA2", "HEX", "UNHEX", "GROUP_CONCAT", "GREATEST", "LEAST", "REPEAT",
		"REPLACE", "ROW", "INTERVAL", "JSON_EXTRACT", "JSON_OBJECT", "JSON_ARRAY", "SLEEP":
		return true
	}
	return false
}
