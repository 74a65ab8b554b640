package proxy

import "sync"

// maxCalls bounds a callCache.
const maxCalls = 4096

// callCache remembers procedures that end transactions by themselves, which
// XA found out halfway through a call, so that they are not begun twice again. A
// procedure that is created anew without doing so stays in it, which costs
// nothing but the wrapping.
type callCache struct {
	mu    sync.RWMutex
	names map[string]struct{}
}

func (c *callCache) direct(name string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.names[name]
	return ok
}

func (c *callCache) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names == nil || len(c.names) >= maxCalls {
		c.names = make(map[string]struct{})
	}
	c.names[name] = struct{}{}
}

// callName is the key of a CALL: the default schema and the name as spelled.
func (s *session) callName(q *stmt) string {
	text := q.effectiveText()
	st := q.effective()
	if st.Name.End > len(text) {
		return s.schema + "\x00"
	}
	return s.schema + "\x00" + string(st.Name.Of(text))
}
