package mysqld_test

import (
	"slices"
	"testing"

	"cohort/internal/mysqld"
	"cohort/internal/mysqldtest"
)

func TestNoncompliant(t *testing.T) {
	s := mysqldtest.Start(t)
	s.SQL(t, "SET GLOBAL super_read_only=OFF", "SET GLOBAL read_only=OFF", "CREATE DATABASE c",
		"CREATE TABLE c.pk (a INT PRIMARY KEY)",
		"CREATE TABLE c.uk (a INT NOT NULL, b INT NOT NULL, UNIQUE KEY (a, b))",
		"CREATE TABLE c.nullable (a INT NOT NULL, b INT, UNIQUE KEY (a, b))",
		"CREATE TABLE c.none (a INT)",
		"CREATE TABLE c.expr (a INT, UNIQUE KEY ((a + 1)))",
		"CREATE TABLE c.isam (a INT PRIMARY KEY) ENGINE=MyISAM",
		"CREATE VIEW c.v AS SELECT * FROM c.none")
	got, _, err := mysqld.Noncompliant(t.Context(), s.DB(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range got {
		names = append(names, x.Schema+"."+x.Name)
	}
	slices.Sort(names)
	if want := []string{"c.expr", "c.isam", "c.none", "c.nullable"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}
