package sqlparse

// ShowVariables tells what a statement with FlagShowVars or FlagShowStatus asks for:
// the values of all sessions or of this one, and the filter as it is written, LIKE or
// WHERE included. like is the span of the pattern, empty for WHERE.
func ShowVariables(sql []byte, mode Mode) (global bool, filter, like Span, ok bool) {
	toks := tokens(sql, mode)
	word := func(i int, k string) bool {
		return i < len(toks) && toks[i].Kind == Word && equalFold(sql[toks[i].Start:toks[i].End], k)
	}
	i := 1
	if global = word(i, "GLOBAL"); global || word(i, "SESSION") || word(i, "LOCAL") {
		i++
	}
	end := len(toks) - 2 // the last token but for EOF
	if !word(0, "SHOW") || !word(i, "VARIABLES") && !word(i, "STATUS") || end < i+2 {
		return false, filter, like, false
	}
	i++
	filter = Span{toks[i].Start, toks[end].End}
	switch {
	case word(i, "WHERE"):
		return global, filter, like, true
	case word(i, "LIKE") && toks[i+1].Kind == String && i+1 == end:
		return global, filter, Span{toks[i+1].Start, toks[i+1].End}, true
	}
	return false, filter, like, false
}
