/* Coordination by Redis when things go wrong: with a real server that is killed, stopped, emptied,
 * replaced, and with mounters in processes of their own. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/coord_fixture.h"

#define WAIT_MS 500 /* for an answer of a server that may be stopped */

static struct world w = {.redis = true};

static const char *const master[] = {"--repl-diskless-sync-delay", "0", NULL};

static void start_impatient(struct mounter *m, unsigned lease_ms)
{
	struct sop_coord_options o;

	memset(m, 0, sizeof(*m));
	o = options_of(&w, m, lease_ms);
	o.wait_ms = WAIT_MS;
	start_with(m, &o);
}

static bool is_up(struct mounter *m)
{
	struct sop_coord_state st;

	sop_coord_state(m->c, &st);
	return st.up;
}

/* A call that comes back with an error, whichever it is that says "away", and a text. */
static bool call_fails(struct mounter *m)
{
	struct sop_err e = {0};
	uint64_t tip;
	int rc = sop_coord_tip(m->c, &tip, &e);

	if (rc) {
		assert_true(rc == SOP_ETIMEOUT || rc == -ENOTCONN);
		assert_true(strstr(e.text, "unix://") != NULL);
	}
	return rc != 0;
}

/* ---- URLs ---- */

static void urls_say_where_the_server_is(void **state)
{
	static const struct {
		const char *url, *shown;
	} good[] = {{"redis://localhost", "redis://localhost:6379/0"},
		{"redis://h:7/3", "redis://h:7/3"}, {"redis://:se%40cret@h", "redis://h:6379/0"},
		{"redis://joe:secret@[fe80::1]:77/2", "redis://[fe80::1]:77/2"},
		{"rediss://h", "rediss://h:6379/0"}, {"rediss://h?ca=/etc/ca", "rediss://h:6379/0"},
		{"rediss://h/2?ca=/etc/ca", "rediss://h:6379/2"},
		{"unix:///run/redis.sock?db=4", "unix:///run/redis.sock"},
		{"sentinel://a+b:7,[::1]:8/tank/5", "sentinel://a:26379/tank"}};
	static const char *const bad[] = {"", "localhost", "http://h", "redis://",
		"redis://h:", "redis://h:0", "redis://h:65536", "redis://h:x", "redis://h/x",
		"redis://a,b", "redis://secret%4@h", "redis://secret%zz@h", "redis://secret%00@h",
		"redis://[::1", "redis://[::1]x", "unix://x", "unix:///x?secret",
		"unix:///x?db=", "sentinel://a", "sentinel://a/", "sentinel://a/b/x",
		"sentinel://a,b,c,d,e,f,g,h,i/x", "redis://h/-1", "redis://h:7secret"};
	struct sop_coord_url u;
	struct sop_err e = {0};
	char text[SOP_COORD_TEXT];

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(good); i++) {
		ok(sop_coord_url_parse(&u, good[i].url, &e), &e);
		sop_coord_url_show(&u, text);
		assert_string_equal(text, good[i].shown);
	}
	assert_int_equal(u.peers, 3);
	assert_string_equal(u.peer[2].host, "::1");
	assert_int_equal(u.peer[1].port, 7);
	assert_int_equal(u.db, 5);
	ok(sop_coord_url_parse(&u, good[2].url, &e), &e);
	assert_string_equal(u.password, "se@cret");
	for (size_t i = 0; i < SOP_ARRAY_LEN(bad); i++) {
		assert_int_equal(sop_coord_url_parse(&u, bad[i], &e), -EINVAL);
		assert_null(strstr(e.text, "secret"));
	}
}

/* ---- the server goes ---- */

static void a_server_that_is_killed_is_found_again(void **state)
{
	struct mounter a, b;
	struct sop_coord_state st;
	struct sop_err e = {0};
	uint64_t tip, grant;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);

	(void)state;
	start_two(&w, &a, &b, LONG_LEASE_MS);
	ok(sop_coord_lock(a.c, &l, 0, &grant, NULL, &e), &e);
	ok(sop_coord_publish(a.c, 5, &e), &e);
	test_redis_kill(&server);
	WAIT_FOR(!a.up && !b.up);
	assert_true(call_fails(&a));
	sop_coord_state(a.c, &st);
	assert_false(st.up);
	assert_true(strlen(st.trouble) > 0);
	/* Nobody has to be restarted, in whatever order. */
	test_redis_again(&server);
	WAIT_FOR(a.sessions == 2 && b.sessions == 2 && a.up && b.up);
	assert_true(a.unbroken && b.unbroken);
	ok(sop_coord_tip(b.c, &tip, &e), &e);
	assert_int_equal(tip, 5);
	ok(sop_coord_alone(b.c, &e), &e);
	assert_int_equal(lock_of(&b, &l, 0), -EAGAIN);
	assert_true(grant_good(a.c, grant));
	sop_coord_close(a.c);
	assert_int_equal(lock_of(&b, &l, 0), 0);
	sop_coord_close(b.c);
}

static void a_server_that_comes_later_is_found(void **state)
{
	struct mounter a = {0};
	struct sop_coord_options o = options_of(&w, &a, LONG_LEASE_MS);
	struct sop_coord_state st;
	struct sop_err e = {0};

	(void)state;
	test_redis_kill(&server);
	ok(sop_coord_open(&a.c, &o, &e), &e);
	sop_coord_state(a.c, &st);
	assert_false(st.up);
	assert_int_equal(sop_coord_session(a.c), 0);
	assert_false(sop_coord_may_commit(a.c, 0));
	test_redis_again(&server);
	WAIT_FOR(a.up && a.sessions == 1);
	sop_coord_close(a.c);
}

static void a_server_that_is_stopped_holds_nobody(void **state)
{
	struct mounter a;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);
	struct sop_err e = {0};
	uint64_t session, tip;

	(void)state;
	start_impatient(&a, LONG_LEASE_MS);
	WAIT_FOR(!sop_coord_alone(a.c, &e));
	session = sop_coord_session(a.c);
	test_redis_pause(&server, true);
	/* Each returns: the first when it has waited, the others sooner or later because it is
	 * known. */
	WAIT_FOR(call_fails(&a));
	assert_true(lock_of(&a, &l, 0) < 0);
	WAIT_FOR(!a.up);
	test_redis_pause(&server, false);
	WAIT_FOR(a.up);
	assert_int_equal(sop_coord_session(a.c), session);
	WAIT_FOR(!sop_coord_tip(a.c, &tip, &e));
	WAIT_FOR(!lock_of(&a, &l, 0));
	sop_coord_close(a.c);
}

static void sessions_outlive_the_sleep_of_a_server(void **state)
{
	struct mounter a, b;
	uint64_t sa, sb;

	(void)state;
	start_impatient(&a, SHORT_LEASE_MS);
	start_impatient(&b, SHORT_LEASE_MS);
	sa = a.session;
	sb = b.session;
	test_redis_pause(&server, true);
	/* For longer than a lease, so that neither may commit. */
	WAIT_FOR(
		!sop_coord_may_commit(a.c, sa) && !sop_coord_may_commit(b.c, sb) && !a.up && !b.up);
	for (int i = 0; i < SHORT_LEASE_MS / 2; i++)
		nap();
	test_redis_pause(&server, false);
	WAIT_FOR(sop_coord_may_commit(a.c, sa) && sop_coord_may_commit(b.c, sb));
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

/* What a lock call left behind that nobody waited for any more is taken back. */
static void a_lock_that_came_too_late_is_given_back(void **state)
{
	struct mounter a, b;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9), other = range(1, F_WRLCK, 20, 29);
	struct sop_err e = {0};
	int rc;

	(void)state;
	start_impatient(&a, LONG_LEASE_MS);
	start(&w, &b, LONG_LEASE_MS);
	ok(sop_coord_alone(b.c, &e), &e);
	WAIT_FOR(!lock_of(&a, &other, 0));
	test_redis_pause(&server, true);
	rc = lock_of(&a, &l, 0);
	assert_true(rc == SOP_ETIMEOUT || rc == -ENOTCONN);
	test_redis_pause(&server, false);
	assert_int_equal(lock_of(&b, &l, BOUND_MS), 0);
	/* But not what it held before. */
	assert_int_equal(lock_of(&b, &other, 0), -EAGAIN);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

/* Also of an object of which nothing else is known here. A few times: the answer may come just
 * before the call that waited for it forgets the object, or just after. */
static void the_first_lock_of_an_object_may_come_too_late(void **state)
{
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);
	struct mounter a, b;
	struct sop_err e = {0};

	(void)state;
	/* What could not be given back is tried again after a tenth of the lease. */
	start_impatient(&a, LONG_LEASE_MS / 30);
	start(&w, &b, LONG_LEASE_MS / 30);
	ok(sop_coord_alone(b.c, &e), &e);
	for (l.object = 100; l.object < 110; l.object++) {
		int rc;

		test_redis_pause(&server, true);
		rc = lock_of(&a, &l, 0);
		assert_true(rc == SOP_ETIMEOUT || rc == -ENOTCONN);
		test_redis_pause(&server, false);
		assert_int_equal(lock_of(&b, &l, BOUND_MS), 0);
		WAIT_FOR(is_up(&a));
	}
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

struct asking {
	struct mounter *m;
	struct sop_coord_lock l;
	pthread_t thread;
};

static void *ask(void *arg)
{
	struct asking *x = arg;

	(void)lock_of(x->m, &x->l, 0);
	return NULL;
}

/* Requests for one object go one after the other. When the server does not answer, an unlock behind
 * others does not come to its turn: what it has unlocked is not held all the same. */
static void an_unlock_that_never_had_its_turn_is_one(void **state)
{
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);
	struct asking x[8];
	struct mounter a, b;
	struct sop_err e = {0};

	(void)state;
	start_impatient(&a, LONG_LEASE_MS / 30);
	start(&w, &b, LONG_LEASE_MS / 30);
	ok(sop_coord_alone(b.c, &e), &e);
	for (l.object = 100; l.object < 105; l.object++) {
		l.type = F_WRLCK;
		WAIT_FOR(!lock_of(&a, &l, 0));
		test_redis_pause(&server, true);
		for (unsigned i = 0; i < SOP_ARRAY_LEN(x); i++) {
			x[i] = (struct asking){.m = &a, .l = range(2 + i, F_RDLCK, 100, 109)};
			x[i].l.object = l.object;
			assert_int_equal(pthread_create(&x[i].thread, NULL, ask, &x[i]), 0);
		}
		nap();
		l.type = F_UNLCK;
		(void)lock_of(&a, &l, 0);
		for (unsigned i = 0; i < SOP_ARRAY_LEN(x); i++)
			pthread_join(x[i].thread, NULL);
		test_redis_pause(&server, false);
		l.type = F_WRLCK;
		assert_int_equal(lock_of(&b, &l, BOUND_MS), 0);
		WAIT_FOR(is_up(&a));
	}
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

/* As one that may evict keys does, being a cache for others. */
static void a_server_that_drops_a_key_grants_nothing_twice(void **state)
{
	static const char *const keys[] = {"g", "s", "l", "q", "h:", "v:"};
	char uuid[SOP_UUID_TEXT], of[20], command[160];

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(keys); i++) {
		struct mounter a, b;
		struct sop_err e = {0};
		uint64_t grant, tip;
		struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);

		start_two(&w, &a, &b, LONG_LEASE_MS);
		ok(sop_coord_lock(a.c, &l, 0, &grant, NULL, &e), &e);
		snprintf(of, sizeof(of), "%016llx", (unsigned long long)sop_coord_session(a.c));
		snprintf(command, sizeof(command), "DEL sopfs:{%s}:%s%s",
			sop_uuid_format(uuid, &w.volume), keys[i], keys[i][1] ? of : "");
		(void)test_redis_do(&server, command);
		assert_int_equal(lock_of(&b, &l, 0), -EAGAIN);
		ok(sop_coord_tip(a.c, &tip, &e), &e);
		ok(sop_coord_alone(a.c, &e), &e);
		assert_int_equal(lock_of(&b, &l, 0), -EAGAIN);
		assert_true(grant_good(a.c, grant));
		/* Nor is it held by nobody for ever. */
		sop_coord_close(a.c);
		assert_int_equal(lock_of(&b, &l, 0), 0);
		sop_coord_close(b.c);
	}
}

static void scripts_that_were_flushed_are_sent_again(void **state)
{
	struct mounter a;
	struct sop_err e = {0};
	uint64_t tip;

	(void)state;
	start(&w, &a, LONG_LEASE_MS);
	ok(sop_coord_publish(a.c, 3, &e), &e);
	assert_string_equal(test_redis_do(&server, "SCRIPT FLUSH"), "+OK");
	ok(sop_coord_tip(a.c, &tip, &e), &e);
	assert_int_equal(tip, 3);
	ok(sop_coord_publish(a.c, 4, &e), &e);
	assert_int_equal(a.sessions, 1);
	sop_coord_close(a.c);
}

/* Clients are thrown out again and again, with calls under way: each comes to its end, none is done
 * twice. */
static atomic_bool enough;

static void *throw_out(void *arg)
{
	(void)arg;
	while (!enough) {
		test_redis_do(&server, "CLIENT KILL TYPE normal SKIPME yes");
		test_redis_do(&server, "CLIENT KILL TYPE pubsub");
		for (int i = 0; i < 5; i++)
			nap();
	}
	return NULL;
}

static void connections_that_break_break_nothing_else(void **state)
{
	struct mounter a, b;
	struct sop_coord_turn turn;
	struct sop_coord_state st;
	struct sop_err e = {0};
	uint64_t session;
	pthread_t t;

	(void)state;
	start_two(&w, &a, &b, LONG_LEASE_MS);
	session = a.session;
	enough = false;
	assert_int_equal(pthread_create(&t, NULL, throw_out, NULL), 0);
	for (uint64_t i = 1; i <= 200; i++) {
		WAIT_FOR(!sop_coord_reserve(a.c, &turn, &e));
		WAIT_FOR(!sop_coord_publish(a.c, i, &e));
		WAIT_FOR(!set(&a, i % 3, F_WRLCK, i, i));
		assert_int_equal(sop_coord_tip_seen(a.c), i);
	}
	enough = true;
	pthread_join(t, NULL);
	WAIT_FOR(b.tip == 200);
	assert_int_equal(b.backwards, 0);
	sop_coord_state(a.c, &st);
	assert_true(st.connections > 1);
	assert_int_equal(sop_coord_session(a.c), session);
	/* All that was locked is. */
	WAIT_FOR(is_up(&b));
	for (uint64_t i = 1; i <= 200; i += 7)
		assert_int_equal(set(&b, 9, F_RDLCK, i, i), -EAGAIN);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

/* ---- passwords ---- */

static const char *write_secret(const char *text, mode_t mode)
{
	static char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/secret", server.dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
	return path;
}

static void passwords_come_from_a_file_that_nobody_else_reads(void **state)
{
	static const char *const with_password[] = {"--requirepass", "open-sesame", NULL};
	struct mounter a = {0};
	struct sop_coord_options o;
	struct sop_coord_state st;
	struct sop_err e = {0};

	(void)state;
	test_redis_end(&server);
	test_redis_start(&server, true, with_password);
	o = options_of(&w, &a, LONG_LEASE_MS);
	o.wait_ms = WAIT_MS;
	o.password_file = write_secret("open-sesame\n", 0644);
	assert_int_equal(sop_coord_open(&a.c, &o, &e), -EACCES);
	assert_non_null(strstr(e.text, "chmod 600"));
	o.password_file = write_secret("\n", 0600);
	assert_int_equal(sop_coord_open(&a.c, &o, &e), -EINVAL);
	/* A wrong one is found out, told without it, and put right without a restart. */
	o.password_file = write_secret("wrong-sesame\n", 0600);
	ok(sop_coord_open(&a.c, &o, &e), &e);
	sop_coord_state(a.c, &st);
	assert_false(st.up);
	WAIT_FOR(strstr((sop_coord_state(a.c, &st), st.trouble), "AUTH") != NULL);
	assert_null(strstr(st.trouble, "sesame"));
	write_secret("open-sesame\n", 0600);
	WAIT_FOR(a.up);
	sop_coord_close(a.c);
}

static void a_url_by_tcp_with_a_user_and_a_database_works(void **state)
{
	static const char *const with_user[] = {
		"--user", "joe", "on", ">open", "allcommands", "allkeys", "allchannels", NULL};
	struct mounter a = {0};
	struct sop_coord_options o;
	struct sop_err e = {0};
	char url[128];

	(void)state;
	test_redis_end(&server);
	test_redis_start(&server, true, with_user);
	snprintf(url, sizeof(url), "redis://joe:open@127.0.0.1:%d/3", server.port);
	o = options_of(&w, &a, LONG_LEASE_MS);
	o.url = url;
	start_with(&a, &o);
	sop_coord_close(a.c);
	/* Its keys are in that database, and under the volume's name. */
	assert_string_equal(test_redis_do(&server, "DBSIZE"), ":0");
	snprintf(url, sizeof(url), "redis://joe:wrong@127.0.0.1:%d/3", server.port);
	memset(&a, 0, sizeof(a));
	o.wait_ms = WAIT_MS;
	ok(sop_coord_open(&a.c, &o, &e), &e);
	assert_false(is_up(&a));
	sop_coord_close(a.c);
}

#ifdef SOP_WITH_REDIS_TLS

/* A certificate of an authority of its own, which the URL names; without it, or by another, there
 * is no trust. */
static void make_certificates(char *dir)
{
	static const char script[] = "cd %s && exec 2>/dev/null && "
				     "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key "
				     "-out ca.pem -days 30 -subj /CN=ours && "
				     "openssl req -x509 -newkey rsa:2048 -nodes -keyout no.key "
				     "-out no.pem -days 30 -subj /CN=theirs && "
				     "openssl req -newkey rsa:2048 -nodes -keyout key.pem -out csr "
				     "-subj /CN=localhost && "
				     "openssl x509 -req -in csr -CA ca.pem -CAkey ca.key "
				     "-CAcreateserial -out cert.pem -days 30";
	char command[sizeof(script) + 64];

	strcpy(dir, "/tmp/soptls.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(command, sizeof(command), script, dir);
	if (system(command))
		fail_msg("openssl");
}

static void tls_trusts_who_it_is_told_to(void **state)
{
	char dir[32], cert[64], key[64], ca[64], port[16], url[128], command[64];
	const char *more[] = {"--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", ca, "--tls-auth-clients", "no", NULL};
	struct mounter a = {0};
	struct sop_coord_options o;
	struct sop_coord_state st;
	struct sop_err e = {0};

	(void)state;
	make_certificates(dir);
	snprintf(cert, sizeof(cert), "%s/cert.pem", dir);
	snprintf(key, sizeof(key), "%s/key.pem", dir);
	snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
	test_redis_end(&server);
	test_redis_start(&server, true, NULL);
	snprintf(port, sizeof(port), "%d", server.port);
	/* That port, free again, for TLS. */
	test_redis_kill(&server);
	server.port = 0;
	server.more = more;
	test_redis_again(&server);
	o = options_of(&w, &a, LONG_LEASE_MS);
	snprintf(url, sizeof(url), "rediss://127.0.0.1:%s?ca=%s/ca.pem", port, dir);
	o.url = url;
	start_with(&a, &o);
	sop_coord_close(a.c);
	memset(&a, 0, sizeof(a));
	snprintf(url, sizeof(url), "rediss://127.0.0.1:%s?ca=%s/no.pem", port, dir);
	o.wait_ms = WAIT_MS;
	ok(sop_coord_open(&a.c, &o, &e), &e);
	WAIT_FOR(strstr((sop_coord_state(a.c, &st), st.trouble), "TLS") != NULL);
	sop_coord_close(a.c);
	snprintf(url, sizeof(url), "rediss://127.0.0.1:%s?ca=%s/none", port, dir);
	assert_int_equal(sop_coord_open(&a.c, &o, &e), -EINVAL);
	server.more = NULL;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

#else

static void tls_trusts_who_it_is_told_to(void **state)
{
	struct mounter a = {0};
	struct sop_coord_options o = options_of(&w, &a, LONG_LEASE_MS);
	struct sop_err e = {0};

	(void)state;
	o.url = "rediss://localhost";
	assert_int_equal(sop_coord_open(&a.c, &o, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.text, "without TLS"));
}

#endif

/* ---- another server ---- */

/* A replica that lags is put in the place of its master, which dies: what it knows is old. */
static void a_replica_that_lags_is_not_believed(void **state)
{
	struct test_redis replica;
	struct mounter a, b;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);
	struct sop_coord_holder by;
	struct sop_err e = {0};
	char command[64];
	uint64_t tip, grant;

	(void)state;
	test_redis_end(&server);
	test_redis_start(&server, true, master);
	test_redis_start(&replica, false, NULL);
	start_two(&w, &a, &b, LONG_LEASE_MS);
	ok(sop_coord_publish(a.c, 5, &e), &e);
	snprintf(command, sizeof(command), "REPLICAOF 127.0.0.1 %d", server.port);
	assert_string_equal(test_redis_do(&replica, command), "+OK");
	WAIT_FOR(strncmp(test_redis_do(&replica, "DBSIZE"), ":0", 3) != 0);
	assert_string_equal(test_redis_do(&replica, "REPLICAOF NO ONE"), "+OK");
	/* This it does not get any more. */
	ok(sop_coord_publish(a.c, 9, &e), &e);
	ok(sop_coord_lock(a.c, &l, 0, &grant, NULL, &e), &e);
	test_redis_kill(&server);
	assert_int_equal(rename(replica.socket, server.socket), 0);
	WAIT_FOR(a.sessions == 2 && b.sessions == 2);
	ok(sop_coord_tip(b.c, &tip, &e), &e);
	assert_int_equal(tip, 9);
	/* Its generation is a new one, in which nothing is granted before all are back. */
	assert_int_equal(sop_coord_lock(b.c, &l, 0, NULL, &by, &e), -EAGAIN);
	ok(sop_coord_alone(b.c, &e), &e);
	assert_int_equal(sop_coord_lock(b.c, &l, 0, NULL, &by, &e), -EAGAIN);
	assert_int_equal(by.session, sop_coord_session(a.c));
	assert_true(a.unbroken && grant_good(a.c, grant));
	sop_coord_close(a.c);
	sop_coord_close(b.c);
	test_redis_end(&replica);
}

static void a_replica_takes_no_requests(void **state)
{
	struct test_redis replica;
	struct mounter a = {0};
	struct sop_coord_options o = options_of(&w, &a, LONG_LEASE_MS);
	struct sop_coord_state st;
	struct sop_err e = {0};
	char command[64];

	(void)state;
	test_redis_end(&server);
	test_redis_start(&server, true, master);
	test_redis_start(&replica, false, NULL);
	snprintf(command, sizeof(command), "REPLICAOF 127.0.0.1 %d", server.port);
	assert_string_equal(test_redis_do(&replica, command), "+OK");
	WAIT_FOR(strstr(test_redis_do(&replica, "CONFIG SET min-replicas-to-write 0"), "OK") !=
		 NULL);
	o.url = replica.url;
	o.wait_ms = WAIT_MS;
	ok(sop_coord_open(&a.c, &o, &e), &e);
	WAIT_FOR(strlen((sop_coord_state(a.c, &st), st.trouble)) > 0 && !st.up &&
		 st.connections > 0);
	/* It is promoted. */
	assert_string_equal(test_redis_do(&replica, "REPLICAOF NO ONE"), "+OK");
	WAIT_FOR(a.up);
	sop_coord_close(a.c);
	test_redis_end(&replica);
}

/* Who is the master is asked of a sentinel, which makes the replica one when it dies. */
static void sentinels_say_where_the_master_went(void **state)
{
	struct test_redis replica, sentinel;
	struct mounter a = {0};
	struct sop_coord_options o = options_of(&w, &a, LONG_LEASE_MS);
	struct sop_coord_state st;
	struct sop_err e = {0};
	char command[64];
	uint64_t tip;

	(void)state;
	test_redis_end(&server);
	test_redis_start(&server, true, master);
	test_redis_start(&replica, true, NULL);
	snprintf(command, sizeof(command), "REPLICAOF 127.0.0.1 %d", server.port);
	assert_string_equal(test_redis_do(&replica, command), "+OK");
	test_sentinel_start(&sentinel, server.port);
	o.url = sentinel.url;
	o.wait_ms = WAIT_MS * 4;
	start_with(&a, &o);
	ok(sop_coord_publish(a.c, 5, &e), &e);
	/* Sentinels learn of replicas from the master, in time. */
	WAIT_FOR(test_redis_do(&sentinel, "SENTINEL replicas tank")[1] == '1');
	WAIT_FOR(strcmp(test_redis_do(&replica, "DBSIZE"), ":0") != 0);
	test_redis_kill(&server);
	WAIT_FOR(a.sessions == 2);
	assert_true(a.unbroken);
	WAIT_FOR(!sop_coord_tip(a.c, &tip, &e));
	assert_int_equal(tip, 5);
	sop_coord_state(a.c, &st);
	assert_true(st.up);
	sop_coord_close(a.c);
	/* A name it does not know. */
	memset(&a, 0, sizeof(a));
	snprintf(command, sizeof(command), "sentinel://127.0.0.1:%d/pool", sentinel.port);
	o.url = command;
	ok(sop_coord_open(&a.c, &o, &e), &e);
	WAIT_FOR(strstr((sop_coord_state(a.c, &st), st.trouble), "knows no pool") != NULL);
	sop_coord_close(a.c);
	test_redis_end(&sentinel);
	test_redis_end(&replica);
}

/* ---- other processes ---- */

/* This program, asked to be a mounter: locks byte 0, says so, and then says what becomes of its
 * session. */
static int mounter_main(char **argv)
{
	struct mounter m = {0};
	struct sop_coord_options o = {
		.url = argv[1], .lease_ms = SHORT_LEASE_MS, .wait_ms = BOUND_MS};
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 0);
	struct sop_err e = {0};
	uint64_t session;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sop_uuid_parse(&o.volume, argv[2]) || sop_coord_open(&m.c, &o, &e) ||
		sop_coord_lock(m.c, &l, BOUND_MS, NULL, NULL, &e)) {
		fprintf(stderr, "mounter: %s\n", e.text);
		return 1;
	}
	session = sop_coord_session(m.c);
	printf("%d\n", getpid());
	fflush(stdout);
	while (sop_coord_session(m.c) == session)
		nap();
	printf("%s\n", sop_coord_may_commit(m.c, session) ? "revived" : "lost");
	fflush(stdout);
	for (;;)
		pause();
}

struct process {
	FILE *says;
	pid_t pid;
};

static void launch_mounter(struct process *p)
{
	char command[300], uuid[SOP_UUID_TEXT], self[160] = "";

	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	snprintf(command, sizeof(command), "exec %s %s %s", self, server.url,
		sop_uuid_format(uuid, &w.volume));
	p->says = popen(command, "re");
	assert_non_null(p->says);
	assert_int_equal(fscanf(p->says, "%d", &p->pid), 1);
}

static void end_mounter(struct process *p)
{
	kill(p->pid, SIGKILL);
	pclose(p->says);
}

static void a_process_that_is_killed_leaves_its_locks(void **state)
{
	struct mounter a = {0};
	struct sop_coord_options o = options_of(&w, &a, SHORT_LEASE_MS);
	struct process p;

	(void)state;
	o.on.expired = NULL;
	start_with(&a, &o);
	launch_mounter(&p);
	end_mounter(&p);
	assert_int_equal(set(&a, 1, F_WRLCK, 1, 1), 0);
	WAIT_FOR(!set(&a, 1, F_WRLCK, 0, 0));
	sop_coord_close(a.c);
}

static void a_process_that_slept_over_its_lease_has_lost_its_session(void **state)
{
	struct mounter a = {0};
	struct sop_coord_options o = options_of(&w, &a, SHORT_LEASE_MS);
	struct process p;
	char word[16] = "";

	(void)state;
	o.on.expired = NULL;
	start_with(&a, &o);
	launch_mounter(&p);
	kill(p.pid, SIGSTOP);
	WAIT_FOR(!set(&a, 1, F_WRLCK, 0, 0));
	kill(p.pid, SIGCONT);
	assert_int_equal(fscanf(p.says, "%15s", word), 1);
	assert_string_equal(word, "lost");
	end_mounter(&p);
	sop_coord_close(a.c);
}

/* ---- */

static int setup(void **state)
{
	struct sop_err e = {0};

	(void)state;
	test_redis_start(&server, false, NULL);
	return sop_uuid_new(&w.volume, &e);
}

static int teardown(void **state)
{
	(void)state;
	test_redis_end(&server);
	return 0;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(urls_say_where_the_server_is),
		CASE(a_server_that_is_killed_is_found_again),
		CASE(a_server_that_comes_later_is_found),
		CASE(a_server_that_is_stopped_holds_nobody),
		CASE(sessions_outlive_the_sleep_of_a_server),
		CASE(a_lock_that_came_too_late_is_given_back),
		CASE(the_first_lock_of_an_object_may_come_too_late),
		CASE(an_unlock_that_never_had_its_turn_is_one),
		CASE(a_server_that_drops_a_key_grants_nothing_twice),
		CASE(scripts_that_were_flushed_are_sent_again),
		CASE(connections_that_break_break_nothing_else),
		CASE(passwords_come_from_a_file_that_nobody_else_reads),
		CASE(a_url_by_tcp_with_a_user_and_a_database_works),
		CASE(tls_trusts_who_it_is_told_to), CASE(a_replica_that_lags_is_not_believed),
		CASE(a_replica_takes_no_requests), CASE(sentinels_say_where_the_master_went),
		CASE(a_process_that_is_killed_leaves_its_locks),
		CASE(a_process_that_slept_over_its_lease_has_lost_its_session)};

	if (argc == 3)
		return mounter_main(argv);
	if (!test_redis_there()) {
		printf("redis-server is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
