// Smoke suite for mysql2: smoke.js HOST PORT USER PASSWORD SCHEMA TLS(0|1).
'use strict';
const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const mysql = require('mysql2/promise');

const [host, port, user, password, database, tls] = process.argv.slice(2);
const options = {
  host, port: Number(port), user, password, database, dateStrings: true,
  ssl: tls === '1' ? { rejectUnauthorized: false } : undefined,
};

async function fails(promise, errno, what) {
  await assert.rejects(promise, (e) => { assert.equal(e.errno, errno, `${what}: ${e.message}`); return true; });
}

async function suite(more) {
  const db = await mysql.createConnection({ ...options, ...more });
  const [[session]] = await db.query('SELECT DATABASE() AS d, CONNECTION_ID() AS id');
  assert.equal(session.d, database);
  assert.equal(session.id, db.threadId, 'CONNECTION_ID() is what the greeting said');

  await db.query('DROP TABLE IF EXISTS js_all');
  await db.query('CREATE TABLE js_all (id INT AUTO_INCREMENT PRIMARY KEY, n BIGINT UNSIGNED, f DOUBLE, s TEXT, t TIMESTAMP(6) NULL, b LONGBLOB, u INT UNIQUE)');

  // Server-side prepared statements, executed again with other values and NULLs.
  const insert = 'INSERT INTO js_all (n, f, s, t, b, u) VALUES (?, ?, ?, ?, ?, ?)';
  let [ok] = await db.execute(insert, ['18446744073709551615', 1.5, 'naïve 🐍', '2024-02-29 12:34:56.789012', Buffer.from([0, 255, 10]), 1]);
  assert.deepEqual([ok.affectedRows, ok.insertId], [1, 1]);
  [ok] = await db.execute(insert, [null, null, null, null, null, 2]);
  assert.equal(ok.insertId, 2);
  const [found] = await db.execute('SELECT CAST(n AS CHAR) AS n, f, s, t, b FROM js_all WHERE u IN (?, ?) ORDER BY u', [1, 2]);
  assert.equal(found[0].n, '18446744073709551615');
  assert.deepEqual([found[0].f, found[0].s, found[0].t], [1.5, 'naïve 🐍', '2024-02-29 12:34:56.789012']);
  assert.deepEqual([...found[0].b], [0, 255, 10]);
  assert.deepEqual(Object.values(found[1]), [null, null, null, null, null]);

  await fails(db.query('INSERT INTO js_all (u) VALUES (1)'), 1062, 'duplicate key');
  await fails(db.execute('INSERT INTO js_all (u) VALUES (?)', [1]), 1062, 'duplicate key, prepared');
  await fails(db.query('SELEC 1'), 1064, 'syntax');
  await fails(db.query('SELECT * FROM js_none'), 1146, 'no table');

  // Transactions as the driver's own calls and as prepared statements.
  const other = await mysql.createConnection({ ...options, ...more });
  const count = async (on, u) => (await on.query('SELECT COUNT(*) AS c FROM js_all WHERE u = ?', [u]))[0][0].c;
  await db.beginTransaction();
  await db.execute('INSERT INTO js_all (u) VALUES (?)', [10]);
  assert.equal(await count(other, 10), 0, 'uncommitted is invisible');
  await db.rollback();
  assert.equal(await count(db, 10), 0, 'rolled back');
  await db.beginTransaction();
  await db.execute('INSERT INTO js_all (u) VALUES (?)', [11]);
  await db.query('SAVEPOINT a');
  await db.execute('INSERT INTO js_all (u) VALUES (?)', [12]);
  await db.query('ROLLBACK TO a');
  await db.commit();
  assert.deepEqual([await count(other, 11), await count(other, 12)], [1, 0], 'committed up to the savepoint');
  await db.execute('COMMIT');
  await db.query('SET autocommit = 0');
  await db.query('INSERT INTO js_all (u) VALUES (13)');
  assert.equal(await count(other, 13), 0, 'autocommit is off');
  await db.query('SET autocommit = 1');
  assert.equal(await count(other, 13), 1, 'turning it on commits');

  // A conflict between two sessions ends in a deadlock for one of them.
  await db.beginTransaction(); await other.beginTransaction();
  await db.query('UPDATE js_all SET f = 1 WHERE u = 1');
  await other.query('UPDATE js_all SET f = 2 WHERE u = 2');
  const both = await Promise.allSettled([
    db.query('UPDATE js_all SET f = 1 WHERE u = 2'), other.query('UPDATE js_all SET f = 2 WHERE u = 1')]);
  const lost = both.filter((r) => r.status === 'rejected');
  assert.equal(lost.length, 1); assert.equal(lost[0].reason.errno, 1213);
  await db.rollback(); await other.rollback();

  const many = await mysql.createConnection({ ...options, ...more, multipleStatements: true });
  const [results] = await many.query("SELECT 1 AS a; UPDATE js_all SET s = 'x' WHERE u = 1; SELECT 2 AS a");
  assert.equal(results[0][0].a, 1); assert.equal(results[1].affectedRows, 1); assert.equal(results[2][0].a, 2);
  await many.end();

  // In hexadecimal either is longer than one packet.
  const big = Buffer.alloc((more.compress ? 9 : 20) << 20, crypto.randomBytes(1 << 16));
  await db.query('INSERT INTO js_all (b, u) VALUES (?, 1000)', [big]);
  const [[back]] = await db.query('SELECT b FROM js_all WHERE u = 1000');
  assert.ok(back.b.equals(big), 'a large value');

  await db.query('INSERT INTO js_all (u) VALUES ?', [Array.from({ length: 500 }, (_, i) => [2000 + i])]);
  let streamed = 0;
  await new Promise((resolve, reject) => db.connection.query('SELECT u FROM js_all WHERE u >= 2000').stream()
    .on('data', () => streamed++).on('end', resolve).on('error', reject));
  assert.equal(streamed, 500);

  await db.ping();
  await db.query('SET @x = 5');
  await db.changeUser({ user, password, database });
  assert.equal((await db.query('SELECT @x AS x'))[0][0].x, null, 'COM_CHANGE_USER resets the session');

  const pool = mysql.createPool({ ...options, ...more, connectionLimit: 8 });
  await Promise.all(Array.from({ length: 64 }, (_, i) => pool.execute('INSERT INTO js_all (u) VALUES (?)', [5000 + i])));
  assert.equal((await pool.query('SELECT COUNT(*) AS c FROM js_all WHERE u >= 5000'))[0][0].c, 64);
  await pool.end();

  await db.query('DROP TABLE js_all');
  await other.end(); await db.end();
}

(async () => {
  await suite({});
  await suite({ compress: true });
  console.log('ok', tls === '1' ? 'tls' : 'plain');
})().catch((e) => { console.error(e); process.exit(1); });
