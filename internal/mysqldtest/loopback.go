package mysqldtest

import (
	"fmt"
	"math/rand/v2"
)

// Loopback returns a loopback host of a test's own. A port of it stays free while
// its listener is away: connections come from 127.0.0.1, and others listen there.
func Loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}
