/* Talks to a control socket as nobody should, or just plainly:
 *
 *     knock SOCKET say LINE        send LINE, print the answer
 *     knock SOCKET raw             send stdin as it is, print what comes until the other side
 * closes knock SOCKET many N          N connections at once, each asks for the status: prints how
 * many got one, how many were turned away, how many got nothing knock SOCKET deaf N          N
 * connections that ask and ask and never read, until a line comes on stdin knock SOCKET garbage N
 * SEED  N connections of random bytes, and of requests with random changes */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char status[] = "{\"version\":1,\"verb\":\"status\",\"text\":true}\n";
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static int knock(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
		fprintf(stderr, "connect: %s\n", strerror(errno));
		exit(1);
	}
	return fd;
}

static void put(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n <= 0)
			return; /* it closed: its right */
		buf += n;
		len -= (size_t)n;
	}
}

/* Copies until a newline (line), or until it closes. False: it closed without a word. */
static int get(int fd, int line, FILE *to)
{
	char buf[65536];
	int any = 0;

	for (;;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		if (n <= 0)
			return any;
		any = 1;
		if (to)
			fwrite(buf, 1, (size_t)n, to);
		if (line && buf[n - 1] == '\n')
			return 1;
	}
}

static int say(const char *line)
{
	int fd = knock();

	put(fd, line, strlen(line));
	put(fd, "\n", 1);
	return !get(fd, 1, stdout);
}

static int raw(void)
{
	char buf[65536];
	int fd = knock();
	size_t n;

	while ((n = fread(buf, 1, sizeof(buf), stdin)) > 0)
		put(fd, buf, n);
	shutdown(fd, SHUT_WR);
	get(fd, 0, stdout);
	return 0;
}

static int many(int n)
{
	int *fd = calloc((size_t)n, sizeof(*fd)), served = 0, refused = 0, nothing = 0;

	for (int i = 0; i < n; i++) {
		fd[i] = knock();
		put(fd[i], status, strlen(status));
	}
	for (int i = 0; i < n; i++) {
		char *text = NULL;
		size_t len;
		FILE *o = open_memstream(&text, &len);

		get(fd[i], 1, o);
		fclose(o);
		served += strstr(text, "\"ok\":true") != NULL;
		refused += strstr(text, "\"ok\":false") != NULL;
		nothing += !len;
		free(text);
	}
	free(fd);
	printf("%d served, %d refused, %d without an answer\n", served, refused, nothing);
	return 0;
}

static int deaf(int n)
{
	char line[8];

	for (int i = 0; i < n; i++) {
		int fd = knock();

		fcntl(fd, F_SETFL, O_NONBLOCK);
		for (int k = 0; k < 100; k++)
			put(fd, status, strlen(status));
	}
	printf("deaf\n");
	fflush(stdout);
	return !fgets(line, sizeof(line), stdin);
}

static int garbage(int n, unsigned seed)
{
	static const char *const verbs[] = {"hello", "status", "info", "events", "scrub", "clear",
		"online", "offline", "replace", "add", "remove", "cancel", "sync", "nonsense"};

	srandom(seed);
	for (int i = 0; i < n; i++) {
		char buf[4096];
		size_t len;
		int fd = knock();

		if (i % 2) {
			len = (size_t)random() % sizeof(buf);
			for (size_t k = 0; k < len; k++)
				buf[k] = (char)random();
		} else {
			len = (size_t)snprintf(buf, sizeof(buf),
				"{\"version\":1,\"verb\":\"%s\",\"disk\":\"d99\",\"path\":\"/no/"
				"such\","
				"\"action\":\"x\",\"skip\":%ld,\"rate\":%ld,\"dry_run\":true}\n",
				verbs[(size_t)random() % (sizeof(verbs) / sizeof(verbs[0]))],
				random(), -random());
			for (int k = (int)(random() % 6); k > 0; k--)
				buf[(size_t)random() % len] = (char)random();
		}
		put(fd, buf, len);
		if (random() % 3 == 0) {
			struct pollfd p = {.fd = fd, .events = POLLIN};

			poll(&p, 1, 20);
		}
		close(fd);
	}
	return 0;
}

/* The verb of a request, as letters alone. */
static void verb_of(char *out, size_t size, const char *request)
{
	const char *p = strstr(request, "\"verb\":");
	size_t n = 0;

	for (p = p ? p + 7 : ""; *p && (*p < 'a' || *p > 'z'); p++)
		;
	for (; *p >= 'a' && *p <= 'z' && n + 1 < size; p++)
		out[n++] = *p;
	out[n] = '\0';
}

struct asked {
	char verb[32];
	int times;
};

static void reply(int fd, const char *folder, const char *request, struct asked *all, int max)
{
	char path[4096], line[65536] = "{\"version\":1,\"ok\":true,\"result\":{}}\n", verb[32];
	bool numbered;
	FILE *f;
	int i;

	verb_of(verb, sizeof(verb), request);
	for (i = 0; i < max - 1 && all[i].verb[0] && strcmp(all[i].verb, verb); i++)
		;
	snprintf(all[i].verb, sizeof(all[i].verb), "%s", verb);
	snprintf(path, sizeof(path), "%s/%s.%d", folder, verb, ++all[i].times);
	f = fopen(path, "re");
	numbered = f != NULL;
	if (!f) {
		snprintf(path, sizeof(path), "%s/%s", folder, verb);
		f = fopen(path, "re");
	}
	if (f) {
		if (!fgets(line, sizeof(line), f))
			line[0] = '\0';
		fclose(f);
		if (numbered)
			unlink(path); /* the test sees what has been asked */
	}
	put(fd, line, strlen(line));
}

static int serve(const char *folder)
{
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct asked asked[16] = {0};

	if (bind(listener, (const struct sockaddr *)&address, sizeof(address)) ||
		listen(listener, 8))
		return 1;
	for (;;) {
		char request[65536];
		int fd = accept(listener, NULL, NULL);
		FILE *in = fd < 0 ? NULL : fdopen(fd, "r");

		if (!in)
			return 1;
		while (fgets(request, sizeof(request), in))
			reply(fd, folder, request, asked, 16);
		fclose(in);
	}
}

int main(int argc, char **argv)
{
	int n = argc > 3 ? atoi(argv[3]) : 0;

	if (argc < 3 || strlen(argv[1]) >= sizeof(address.sun_path))
		return 2;
	strcpy(address.sun_path, argv[1]);
	if (strcmp(argv[2], "say") == 0 && argc > 3)
		return say(argv[3]);
	if (strcmp(argv[2], "raw") == 0)
		return raw();
	if (strcmp(argv[2], "many") == 0)
		return many(n);
	if (strcmp(argv[2], "deaf") == 0)
		return deaf(n);
	if (strcmp(argv[2], "serve") == 0 && argc > 3)
		return serve(argv[3]);
	if (strcmp(argv[2], "garbage") == 0 && argc > 4)
		return garbage(n, (unsigned)atoi(argv[4]));
	return 2;
}
