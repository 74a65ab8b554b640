"""Smoke suite for PyMySQL: smoke.py HOST PORT USER PASSWORD SCHEMA TLS(0|1)."""
import datetime
import decimal
import os
import ssl
import sys
import tempfile

import pymysql

host, port, user, password, schema, tls = sys.argv[1:7]
context = None
if tls == "1":
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
options = dict(host=host, port=int(port), user=user, password=password, database=schema,
               ssl=context, charset="utf8mb4", local_infile=True, autocommit=True)


def connect(**more):
    return pymysql.connect(**{**options, **more})


def expect(got, want, what):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


def rows(cursor, sql, *args):
    cursor.execute(sql, args)
    return cursor.fetchall()


db = connect()
c = db.cursor()
cipher = rows(c, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1]
# What the server behind a proxy sees of TLS is not the client's business, so
# only the client's own socket is asked.
expect(isinstance(db._sock, ssl.SSLSocket), tls == "1", "TLS on the socket")
expect(rows(c, "SELECT DATABASE(), CONNECTION_ID() > 0"), ((schema, 1),), "session")

c.execute("DROP TABLE IF EXISTS py_all, py_load")
c.execute("CREATE TABLE py_all (id INT AUTO_INCREMENT PRIMARY KEY, n DECIMAL(10,3), s VARCHAR(100), "
          "d DATETIME(6), b LONGBLOB, j JSON, u INT UNIQUE)")
stamp = datetime.datetime(2024, 2, 29, 12, 34, 56, 789012)
c.execute("INSERT INTO py_all (n, s, d, b, j, u) VALUES (%s, %s, %s, %s, %s, %s)",
          (decimal.Decimal("1234.567"), "naïve \U0001F40D 'quoted' \\ %", stamp, bytes(range(256)), '{"a": [1, null]}', 1))
expect((c.rowcount, c.lastrowid), (1, 1), "insert")
got = rows(c, "SELECT n, s, d, b, JSON_EXTRACT(j, '$.a[0]'), u FROM py_all WHERE id = %s", 1)[0]
expect(got, (decimal.Decimal("1234.567"), "naïve \U0001F40D 'quoted' \\ %", stamp, bytes(range(256)), "1", 1), "round trip")
expect(rows(c, "SELECT NULL, 1, 2.5, ''"), ((None, 1, decimal.Decimal("2.5"), ""),), "literals")

# Errors keep their numbers, and leave the connection usable.
for sql, number in (("INSERT INTO py_all (u) VALUES (1)", 1062), ("SELEC 1", 1064), ("SELECT * FROM py_none", 1146)):
    try:
        c.execute(sql)
        raise AssertionError(sql + " succeeded")
    except pymysql.MySQLError as e:
        expect(e.args[0], number, sql)
expect(rows(c, "SELECT 1"), ((1,),), "after errors")

# Transactions: rollback, commit, savepoint, and what another session sees.
other = connect()
oc = other.cursor()
db.autocommit(False)
db.begin()
c.execute("INSERT INTO py_all (u) VALUES (10)")
expect(rows(oc, "SELECT COUNT(*) FROM py_all WHERE u = 10"), ((0,),), "uncommitted is invisible")
db.rollback()
expect(rows(c, "SELECT COUNT(*) FROM py_all WHERE u = 10"), ((0,),), "rolled back")
c.execute("INSERT INTO py_all (u) VALUES (11)")
c.execute("SAVEPOINT a")
c.execute("INSERT INTO py_all (u) VALUES (12)")
c.execute("ROLLBACK TO SAVEPOINT a")
db.commit()
expect(rows(oc, "SELECT u FROM py_all WHERE u BETWEEN 10 AND 12"), ((11,),), "committed up to the savepoint")
db.autocommit(True)

# Many rows at once, warnings, several results.
c.executemany("INSERT INTO py_all (s, u) VALUES (%s, %s)", [(f"row {i}", 100 + i) for i in range(500)])
expect(c.rowcount, 500, "executemany")
c.execute("SELECT 1/0")
expect(c.fetchone(), (None,), "division by zero")
expect([w[1] for w in rows(c, "SHOW WARNINGS")], [1365], "warnings")
multi = connect(client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS)
mc = multi.cursor()
mc.execute("SELECT 1; UPDATE py_all SET s = 'x' WHERE u = 1; SELECT 2")
results = [mc.fetchall()]
while mc.nextset():
    results.append(mc.fetchall())
expect(results, [((1,),), (), ((2,),)], "several results")
multi.close()

# A value of more than one packet.
big = os.urandom(1 << 20) * 20
c.execute("INSERT INTO py_all (b, u) VALUES (%s, 1000)", (big,))
expect(rows(c, "SELECT b FROM py_all WHERE u = 1000")[0][0] == big, True, "20 MiB value")

# An unbuffered cursor, abandoned half way.
sc = db.cursor(pymysql.cursors.SSCursor)
sc.execute("SELECT u FROM py_all WHERE u >= 100 AND u < 600 ORDER BY u")
expect([sc.fetchone()[0] for _ in range(3)], [100, 101, 102], "unbuffered")
sc.close()

db.ping()
db.select_db(schema)
expect(rows(c, "SELECT COUNT(*) FROM py_all WHERE u >= 100 AND u < 600"), ((500,),), "after ping")

# LOAD DATA LOCAL, where the server allows it.
if rows(c, "SELECT @@GLOBAL.local_infile")[0][0] == 1:
    c.execute("CREATE TABLE py_load (id INT PRIMARY KEY, s VARCHAR(20))")
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as f:
        f.writelines(f"{i},line {i}\n" for i in range(1000))
        f.flush()
        c.execute(f"LOAD DATA LOCAL INFILE '{f.name}' INTO TABLE py_load FIELDS TERMINATED BY ','")
    expect(c.rowcount, 1000, "load data")
    c.execute("DROP TABLE py_load")

# KILL of one's own other connection.
victim = rows(oc, "SELECT CONNECTION_ID()")[0][0]
c.execute(f"KILL {victim}")
try:
    oc.execute("SELECT 1")
    raise AssertionError("a killed connection answered")
except pymysql.MySQLError:
    pass

c.execute("DROP TABLE py_all")
db.close()
print("ok", pymysql.__version__, "tls" if tls == "1" else "plain")
