package cluster

import (
	"reflect"
	"testing"
)

func TestParseGTIDSet(t *testing.T) {
	const a, b = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
	for text, want := range map[string]GTIDSet{
		"":                                   {},
		a + ":1":                             {a: {{1, 1}}},
		a + ":1-5:7-9":                       {a: {{1, 5}, {7, 9}}},
		a + ":1-5:local:2-3,\n" + b + ":1-4": {a: {{1, 5}}, a + ":local": {{2, 3}}, b: {{1, 4}}},
		a + ":tag:1:other:4-6":               {a + ":tag": {{1, 1}}, a + ":other": {{4, 6}}},
	} {
		got, err := ParseGTIDSet(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{a + ":5-1", a + ":1-x"} {
		if _, err := ParseGTIDSet(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	set, _ := ParseGTIDSet(a + ":1-5:local:2-3," + b + ":1-4:9")
	if set.Count(b) != 5 || set.Count(a) != 5 {
		t.Errorf("counts %d, %d", set.Count(b), set.Count(a))
	}
}

func FuzzParseGTIDSet(f *testing.F) {
	f.Add("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:local:2-3")
	f.Fuzz(func(_ *testing.T, text string) {
		set, err := ParseGTIDSet(text)
		if err == nil {
			for key := range set {
				set.Count(key)
			}
		}
	})
}
