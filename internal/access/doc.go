// Package access is the one door: the users and the access control list (ACL) of a gateway, once for all protocols. It reads
// the password and ACL files that users of mosquitto already have.
//
// # Password files
//
// One user per line, written "name:hash". Empty lines and lines that begin with '#' are skipped, blanks around the name and
// the hash are ignored. The hash is one of
//
//	$7$<iterations>$<salt>$<hash>                         PBKDF2 with SHA-512, base64; what mosquitto_passwd writes
//	$6$<salt>$<hash>                                      SHA-512 of password and salt, base64; older mosquitto
//	$argon2id$v=19$m=<KiB>,t=<passes>,p=<lanes>$<salt>$<hash>   PHC string; what isthmus passwd writes
//	SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>  RFC 5803 as PostgreSQL writes it, base64
//
// A user has at most one SCRAM line and one line of another form. The SCRAM line serves MQTT 5 enhanced authentication; where
// it is the only one, plain passwords are checked against it too. Parameters that would make a check cost more than about a
// second or 256 MiB are refused when the file is read.
//
// # ACL files
//
//	# a comment
//	topic  [read|write|readwrite|deny] <filter>    before the first user line: clients without a user name
//	user   <name>
//	topic  [read|write|readwrite|deny] <filter>    that user
//	pattern [read|write|readwrite|deny] <filter>   every client, wherever the line stands; %c is the client id, %u the user name
//
// Without a keyword a line gives read and write. What no line gives is denied. A deny wins over every grant, whatever the
// order and wherever it stands; mosquitto lets a grant of a topic line win over a deny of a pattern line. Reading $SYS needs a
// grant that begins with "$SYS", as in mosquitto. Without any ACL everyone who is let in may read and write everything.
//
// # Values in patterns
//
// A client id or user name that has '+', '#' or '/' in it, or that would make a filter begin with '$', never becomes part of
// a grant: the line does not apply to that client. A deny line takes a value with '/' literally, since it can only take away.
package access
