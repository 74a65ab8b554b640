package sqlparse

import (
	"fmt"
	"testing"
)

func TestShowVariables(t *testing.T) {
	for sql, want := range map[string]string{
		"SHOW VARIABLES LIKE 'group%'":                           "false|LIKE 'group%'|'group%'",
		"show global variables like 'a' ;":                       "true|like 'a'|'a'",
		"SHOW SESSION VARIABLES WHERE Variable_name = 'x' AND 1": "false|WHERE Variable_name = 'x' AND 1|",
		"SHOW VARIABLES":                                         "",
		"SHOW GLOBAL VARIABLES":                                  "",
		"SHOW VARIABLES LIKE 'a' 'b'":                            "",
		"SHOW VARIABLES LIKE":                                    "",
		"SHOW STATUS LIKE 'a'":                                   "false|LIKE 'a'|'a'",
		"SELECT 1 LIKE 'a'":                                      "",
	} {
		global, filter, like, ok := ShowVariables([]byte(sql), Mode{})
		got := ""
		if ok {
			got = fmt.Sprintf("%v|%s|%s", global, filter.Of([]byte(sql)), like.Of([]byte(sql)))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
		if st := Classify([]byte(sql), Mode{}); ok && (!st.Has(FlagShowVars) && !st.Has(FlagShowStatus) || st.Class != Read) {
			t.Errorf("%s: %v %x", sql, st.Class, st.Flags)
		}
	}
}
