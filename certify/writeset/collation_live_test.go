package writeset

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"cohort/internal/mysqldtest"
)

// alphabet holds characters that collations like to call equal: case, accents,
// expansions, ignorables, things that weigh as much as a space, widths, kana.
var alphabet = []string{
	"a", "A", "b", "B", "z", "Z", "á", "Á", "ä", "Ä", "ae", "æ", "Æ", "å", "Å", "aa", "s", "ss", "ß", "ẞ", "o", "ö", "Ö", "oe", "œ",
	"i", "I", "ı", "İ", "l", "ł", "ch", "c", "h", "č", "dz", "ll", "n", "ñ", " ", "  ", "\u00a0", "\t", "\x01", "\u00ad", "\u200b",
	"-", "_", ".", "0", "1", "９", "９", "ｱ", "ア", "あ", "ぁ", "が", "か", "ー", "ハ", "バ", "中", "文", "한", "Ω", "ω", "σ", "ς", "д", "Д", "ё", "е",
	"ก", "ข", "\U0001F600", "\U0001F363", "\u0301", "ﬁ", "fi", "Ⅷ", "viii", "№", "é", "e\u0301", "đ", "d", "ð", "þ", "th", "y", "ü", "ue", "v", "w",
}

func randomString(r *rand.Rand, max int) string {
	var b strings.Builder
	for range r.IntN(max) {
		b.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

// TestCollationsAgreeWithServer compares, for every collation of the server,
// what its unique index calls a duplicate with what our normal forms call
// equal: a duplicate that we call distinct is a lost conflict (wrong), the
// contrary a false one (slow).
func TestCollationsAgreeWithServer(t *testing.T) {
	s := mysqldtest.Start(t)
	ctx := context.Background()
	src := source{db: s.DB(t)}
	if err := src.loadCollations(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := s.DB(t).Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	exec := func(q string, args ...any) {
		t.Helper()
		if _, err := conn.ExecContext(ctx, q, args...); err != nil {
			t.Fatalf("%.200s: %v", q, err)
		}
	}
	exec("CREATE DATABASE c")
	exec("USE c")
	exec("SET NAMES utf8mb4")
	exec("SET sql_mode='', sql_log_bin=0")

	r := rand.New(rand.NewPCG(1, 2))
	const count = 250
	values := make([]string, count)
	for i := range values {
		values[i] = randomString(r, 5)
	}
	var list strings.Builder
	for i, v := range values {
		if i > 0 {
			list.WriteByte(',')
		}
		fmt.Fprintf(&list, "(%d,CONVERT(X'%x' USING utf8mb4))", i, v)
	}
	// Prefixes of one and two characters meet multi-byte boundaries.
	shapes := []struct {
		name, column, index string
		prefix              int
	}{
		{"whole", "VARCHAR(40)", "v", 0},
		{"prefix", "VARCHAR(40)", "v(2)", 2},
		{"char", "CHAR(20)", "v", 0},
	}
	names := make([]string, 0, len(src.collations))
	for name := range src.collations {
		names = append(names, name)
	}
	sort.Strings(names)
	unknown, wrong := 0, 0
	for _, name := range names {
		c := src.collations[name]
		if c.form() == formNone {
			unknown++
			t.Logf("%s: rows with such keys conflict as a whole", name)
			continue
		}
		for i, sh := range shapes {
			// Prefixes and padding depend on the character set and the padding.
			if i > 0 && !strings.HasSuffix(name, "_bin") && !strings.HasSuffix(name, "_general_ci") && name != "utf8mb4_0900_ai_ci" {
				continue
			}
			kp := stringPart(0, c, sh.prefix)
			if kp.form == formNone {
				continue
			}
			exec("DROP TABLE IF EXISTS u, p")
			def := fmt.Sprintf("(id INT PRIMARY KEY, v %s CHARACTER SET %s COLLATE %s", sh.column, c.charset, name)
			exec("CREATE TABLE p " + def + ")")
			exec("CREATE TABLE u " + def + ", UNIQUE(" + sh.index + "))")
			exec("INSERT INTO p VALUES " + list.String())
			exec("INSERT IGNORE INTO u SELECT * FROM p ORDER BY id")
			rows, err := conn.QueryContext(ctx, "SELECT HEX(CAST(p.v AS BINARY)), u.id IS NOT NULL FROM p LEFT JOIN u ON u.id=p.id ORDER BY p.id")
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]string{}
			lost, falseConflicts := 0, 0
			for rows.Next() {
				var text string
				var accepted bool
				if err := rows.Scan(&text, &accepted); err != nil {
					t.Fatal(err)
				}
				raw, err := hex.DecodeString(text)
				if err != nil {
					t.Fatal(err)
				}
				k := string(kp.append(nil, raw))
				first, dup := seen[k]
				switch {
				case accepted && dup:
					if falseConflicts++; falseConflicts == 1 {
						t.Logf("%s %s: %x and %x are distinct to the server", name, sh.name, first, raw)
					}
				case !accepted && !dup:
					if lost++; lost == 1 {
						t.Logf("%s %s: %x is a duplicate to the server only", name, sh.name, raw)
					}
				}
				if !dup {
					seen[k] = string(raw)
				}
			}
			rows.Close()
			if lost > 0 || falseConflicts > 0 {
				wrong++
				t.Errorf("%s %s: %d conflicts lost, %d false", name, sh.name, lost, falseConflicts)
			}
		}
	}
	t.Logf("%d collations, %d without normal form, %d wrong", len(names), unknown, wrong)
}
