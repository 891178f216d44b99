#!/bin/sh
# Checks an unpacked export package of Steno.
#
#   sh VERIFY.sh FINGERPRINT [OLDER-CHECKPOINT]
#
# FINGERPRINT is the SHA-256 of the public signing key (DER, hex). It must come from
# somewhere else than this package, and so should this script: whoever forges a package
# forges what lies in it. The format is specified in shared/custody/verify/FORMAT.md of
# Steno; the numbers below are those of its section 5.
#
# Exit: 0 VERIFIED, 1 FAILED, 2 wrong usage, 3 UNVERIFIED.
#
# Each step fails by itself. There is no "set -e": where a shell ignores it, a forged
# package would pass.
LC_ALL=C
export LC_ALL
umask 077

fail() {
	echo "FAILED: $1"
	exit 1
}
usage() {
	echo "usage: sh VERIFY.sh FINGERPRINT [OLDER-CHECKPOINT]" >&2
	echo "$1" >&2
	exit 2
}

for tool in awk base64 cmp cut find grep head mktemp openssl paste sed sha256sum sort split tail tr uniq wc xargs xxd; do
	command -v "$tool" >/dev/null 2>&1 || usage "the program $tool is missing"
done
[ $# -le 2 ] || usage "too many arguments"
fingerprint=$1
case $fingerprint in
*[!0-9a-f]*) usage "a fingerprint has 64 hex digits, lower case" ;;
esac
[ -z "$fingerprint" ] || [ ${#fingerprint} -eq 64 ] || usage "a fingerprint has 64 hex digits"
older=
if [ -n "$2" ]; then
	older=$(cat "$2" && echo x) || usage "the older checkpoint cannot be read"
fi

cd "$(dirname "$0")" || fail "the directory of the package cannot be entered"
tmp=$(mktemp -d) || fail "no temporary directory"
trap 'rm -rf "$tmp"' EXIT

# Where awk reads two files, it asks which one it is in by name: with "NR == FNR" a first
# file that is empty makes the second one pass for it, and nothing is compared.

# hash N: one hex string a line of N bytes in, its SHA-256 a line out.
hash() {
	rm -rf "$tmp/pieces" && mkdir "$tmp/pieces" || return 1
	xxd -r -p >"$tmp/bytes" || return 1
	[ -s "$tmp/bytes" ] || return 0
	split -b "$1" -a 6 "$tmp/bytes" "$tmp/pieces/" || return 1
	(cd "$tmp/pieces" && find . -type f | sort | xargs sha256sum) | cut -c1-64
}

# 1. The files are those that are listed, and each has its digest.
name='[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?(/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?){0,4}'
find . ! -type f ! -type d >"$tmp/odd" || fail "1: the files cannot be listed"
[ ! -s "$tmp/odd" ] || fail "1: something is neither a file nor a directory: $(head -n 1 "$tmp/odd")"
find . -mindepth 1 -type d -empty >"$tmp/odd" || fail "1: the directories cannot be listed"
[ ! -s "$tmp/odd" ] || fail "1: an empty directory: $(head -n 1 "$tmp/odd")"
find . -type f | sed 's|^\./||' | sort >"$tmp/found" || fail "1: the files cannot be listed"
grep -vE "^$name\$" "$tmp/found" >"$tmp/odd" && fail "1: a name that no package has: $(head -n 1 "$tmp/odd")"
awk 'length($0) > 200 { exit 1 }' "$tmp/found" || fail "1: a name that is too long"
tr 'A-Z' 'a-z' <"$tmp/found" | sort | uniq -d >"$tmp/odd" || fail "1: the names cannot be compared"
[ ! -s "$tmp/odd" ] || fail "1: two names that differ in case alone: $(head -n 1 "$tmp/odd")"
for file in README.txt VERIFY.sh index.html package.json package.sig SHA256SUMS custody/extract.ndjson custody/extract.csv proof/checkpoint proof/checkpoint.sig proof/leaves.txt proof/objects.txt; do
	[ -f "$file" ] || fail "1: $file is missing"
done
grep -vE "^[0-9a-f]{64}  $name\$" SHA256SUMS >"$tmp/odd" && fail "1: SHA256SUMS has a line that is none"
[ "$(tail -c 1 SHA256SUMS | xxd -p)" = 0a ] || fail "1: SHA256SUMS does not end with a line end"
cut -c67- SHA256SUMS >"$tmp/listed" || fail "1: SHA256SUMS cannot be read"
sort -c -u "$tmp/listed" 2>/dev/null || fail "1: SHA256SUMS is not in order, or names a file twice"
{ cat "$tmp/listed" && printf 'SHA256SUMS\npackage.json\npackage.sig\n'; } | sort | cmp -s - "$tmp/found" ||
	fail "1: the files are not those that SHA256SUMS lists"
sha256sum -c SHA256SUMS >"$tmp/sums" 2>/dev/null || fail "1: $(grep -v ': OK$' "$tmp/sums" | head -n 1)"
echo "1. $(wc -l <"$tmp/listed") files, each with its digest"

# 2. The key is the one that was named from outside.
member() { sed -n "s/^{.*\"$1\":\"\([0-9A-Za-z:./ -]*\)\",\"$2\":.*\$/\1/p" package.json; }
key=$(member key made)
[ ${#key} -eq 64 ] || fail "2: package.json names no key"
[ "$(grep '^keys/' "$tmp/listed")" = "keys/$key.pem" ] || fail "2: keys/ does not hold the one key that package.json names"
[ "$(openssl pkey -pubin -in "keys/$key.pem" -outform DER 2>/dev/null | sha256sum | cut -c1-64)" = "$key" ] || fail "2: keys/$key.pem is another key"
if [ -n "$fingerprint" ]; then
	[ "$key" = "$fingerprint" ] || fail "2: the package is signed by another key: $key"
	echo "2. signed by the key $key"
else
	echo "2. UNVERIFIED: no fingerprint was given. The package says that it is signed by $key"
fi

# 3. The package is signed.
openssl dgst -sha256 -verify "keys/$key.pem" -signature package.sig package.json >/dev/null 2>&1 || fail "3: package.sig is no signature of package.json"
[ "$(wc -l <package.json)" -eq 0 ] || fail "3: package.json has more than one line"
# Its one form, with a letter for each element of its lists: other members, other spellings
# and repetitions do not fit.
grep -qE '[[,][UCD][],]' package.json && fail "3: package.json is not its canonical form"
number='(0|[1-9][0-9]{0,17})'
path='"[A-Za-z0-9._/-]*"'
sed -E 's/\{"objects":'"$number"',"unit":"[0-9a-z-]*","unproven":\[("[0-9a-f]*"(,"[0-9a-f]*")*)?\]\}/U/g
	s/\{"id":"[0-9a-z-]*","modality":"[a-z]*","units":\[(U(,U)*)?\]\}/C/g
	s/\{"from":\[('"$path(,$path"')*)?\],"path":'"$path"',"tool":"[^"\\]*"\}/D/g' package.json |
	grep -qE '^\{"conversations":\[(C(,C)*)?\],"derived":\[(D(,D)*)?\],"export":"[0-9a-f]{32}","format":"steno-export-package/1","key":"[0-9a-f]{64}","made":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z","maker":"[^"\\]*","origin":"[^"\\]*","salt":"[0-9a-f]{32}","sums":"[0-9a-f]{64}","tenant":"[0-9a-f-]{36}"\}$' ||
	fail "3: package.json is of another format, or not its canonical form"
[ "$(sha256sum SHA256SUMS | cut -c1-64)" = "$(member sums tenant)" ] || fail "3: SHA256SUMS is not the one that was signed"
origin=$(member origin salt)
tenant=${origin#steno-custody-log-v1/}
grep -q "\"tenant\":\"$tenant\"}\$" package.json || fail "3: origin and tenant do not agree"
echo "3. package.json and SHA256SUMS are signed"

# 4. The checkpoint is signed, and of this log.
openssl dgst -sha256 -verify "keys/$key.pem" -signature proof/checkpoint.sig proof/checkpoint >/dev/null 2>&1 || fail "4: proof/checkpoint.sig is no signature of proof/checkpoint"
# checkpoint TEXT: checks the form of a checkpoint and sets size and root.
checkpoint() {
	printf %s "$1" >"$tmp/text" || return 1
	[ "$(wc -l <"$tmp/text")" -eq 3 ] && [ "$(sed -n 1p "$tmp/text")" = "$origin" ] || return 1
	size=$(sed -n 2p "$tmp/text")
	printf '%s\n' "$size" | grep -qE '^(0|[1-9][0-9]{0,17})$' || return 1
	sed -n 3p "$tmp/text" | grep -qE '^[A-Za-z0-9+/]{43}=$' || return 1
	root=$(sed -n 3p "$tmp/text" | base64 -d | xxd -p -c 64) || return 1
	[ ${#root} -eq 64 ] && [ "$(printf '%s\n' "$root" | xxd -r -p | base64)" = "$(sed -n 3p "$tmp/text")" ]
}
text=$(cat proof/checkpoint && echo x)
checkpoint "${text%x}" || fail "4: proof/checkpoint is no checkpoint of $origin"
now_size=$size
now_root=$root
echo "4. a checkpoint of $size records is signed"

# 5. Each record is in the log.
sed -n 's|^proof/records/\([0-9]\{6\}\)\.json$|\1|p' "$tmp/listed" >"$tmp/numbers"
[ "$(grep -c '^proof/records/' "$tmp/listed")" -eq "$(wc -l <"$tmp/numbers")" ] || fail "5: proof/records holds something that is no record"
sed -n 's|^proof/inclusion/\([0-9]\{6\}\)\.txt$|\1|p' "$tmp/listed" | cmp -s - "$tmp/numbers" || fail "5: proof/inclusion does not fit proof/records"
grep -vE '^[0-9]{6} (0|[1-9][0-9]{0,17}) [0-9a-f]{16}-[0-9a-f]{16}$' proof/leaves.txt >"$tmp/odd" && fail "5: proof/leaves.txt has a line that is none"
cut -d' ' -f1 proof/leaves.txt | cmp -s - "$tmp/numbers" || fail "5: proof/leaves.txt does not fit proof/records"
awk -v size="$now_size" 'BEGIN { last = -1 } { if ($2 + 0 <= last || $2 + 0 >= size + 0) exit 1; last = $2 + 0 }' proof/leaves.txt || fail "5: the leaves do not rise, or lie beyond the checkpoint"
mkdir "$tmp/records" || fail "5: no room"
: >"$tmp/lines" || fail "5: no room"
if [ -s "$tmp/numbers" ]; then
	# One line a record. What follows looks at them all at once: a process each would take long.
	sed 's|^\(.*\)$|proof/records/\1.json|' "$tmp/numbers" | xargs awk 1 >"$tmp/lines" || fail "5: the records cannot be read"
	[ "$(wc -l <"$tmp/lines")" -eq "$(wc -l <"$tmp/numbers")" ] || fail "5: a record is not its one spelling"
	tr -d '\000-\011\013-\037' <"$tmp/lines" | cmp -s - "$tmp/lines" || fail "5: a record is not its one spelling"
	text='"([^"\\]|\\(["\\bfnrt]|u00[01][0-9a-f]))*"'
	entry='\{("commit":"[0-9a-f]{64}",)?"object":"[0-9A-Za-z-]*","seq":'"$number"'(,"sha256":"[0-9a-f]{64}")?,"unit":"[0-9a-z-]*"(,"void":true)?\}'
	grep -vE '^\{"action":'"$text"'(,"actor":'"$text"')?,"at":'"$text"'(,"detail":'"$text"')?,"id":"[0-9a-f-]{33}","item":'"$text"'(,"objects":\['"$entry(,$entry"')*\])?(,"reason":'"$text"')?(,"session":'"$text"')?(,"system":'"$text"')?,"tenant":"[0-9a-f-]{36}"\}$' "$tmp/lines" >"$tmp/odd" &&
		fail "5: a record is not its one spelling: $(cut -c1-200 "$tmp/odd" | head -n 1)"
	awk -v tenant="$tenant" 'FILENAME == ARGV[1] { number[FNR] = $1; id[FNR] = $3; next }
		{ end = "\"tenant\":\"" tenant "\"}"
		  if (!index($0, ",\"id\":\"" id[FNR] "\",\"item\":")) { print "proof/records/" number[FNR] ".json is not the record " id[FNR]; exit }
		  if (substr($0, length($0) - length(end) + 1) != end) { print "proof/records/" number[FNR] ".json belongs to another tenant"; exit } }' proof/leaves.txt "$tmp/lines" >"$tmp/odd" || fail "5: the records cannot be read"
	[ ! -s "$tmp/odd" ] || fail "5: $(cat "$tmp/odd")"
	while read -r at; do
		{ printf 'steno-custody-event-v1\000' && cat "proof/records/$at.json"; } >"$tmp/records/$at" || exit 1
	done <"$tmp/numbers" || fail "5: the records cannot be read"
	(cd "$tmp/records" && sort "$tmp/numbers" | xargs sha256sum) | sed 's/^\(.\{64\}\).*$/00\1/' | hash 33 >"$tmp/leaves" || fail "5: the leaves cannot be computed"
	[ "$(wc -l <"$tmp/leaves")" -eq "$(wc -l <"$tmp/numbers")" ] || fail "5: the leaves cannot be computed"
	paste -d' ' "$tmp/numbers" "$tmp/leaves" >"$tmp/nodes" || fail "5: the leaves cannot be computed"
	sed 's|^\(.*\)$|proof/inclusion/\1.txt|' "$tmp/numbers" | xargs awk '{ print FILENAME, FNR, $0 }' >"$tmp/raw" || fail "5: the steps cannot be read"
	grep -vE '^proof/inclusion/[0-9]{6}\.txt [0-9]+ [LR] [0-9a-f]{64}$' "$tmp/raw" >"$tmp/odd" && fail "5: a line that is no step: $(cut -d' ' -f1,2 "$tmp/odd" | head -n 1)"
	sed 's|^proof/inclusion/\([0-9]*\)\.txt|\1|' "$tmp/raw" >"$tmp/steps" || fail "5: the steps cannot be read"
	# On which side each sibling stands follows from index and size (RFC 9162 section 2.1.3.2).
	awk -v size="$now_size" 'FILENAME == ARGV[1] { steps[$1] = steps[$1] $3; next }
		{ fn = $2 + 0; sn = size - 1; sides = ""
		  while (sn > 0) {
			if (fn % 2 == 1 || fn == sn) {
				sides = sides "L"
				while (fn % 2 == 0 && fn != 0) { fn = fn / 2; sn = int(sn / 2) }
			} else sides = sides "R"
			fn = int(fn / 2); sn = int(sn / 2)
		  }
		  if (sides != steps[$1]) { print $1; exit } }' "$tmp/steps" proof/leaves.txt >"$tmp/odd" || fail "5: the steps cannot be read"
	[ ! -s "$tmp/odd" ] || fail "5: proof/inclusion/$(cat "$tmp/odd").txt is not the way from that leaf to the root"
	level=1
	deepest=$(awk '$2 > d { d = $2 } END { print d + 0 }' "$tmp/steps")
	[ "$deepest" -le 64 ] || fail "5: a proof of more steps than a tree can have"
	while [ "$level" -le "$deepest" ]; do
		awk -v level="$level" 'FILENAME == ARGV[1] { if ($2 == level) { side[$1] = $3; other[$1] = $4 } next }
			$1 in side { print $1, "01" (side[$1] == "L" ? other[$1] $2 : $2 other[$1]) }' "$tmp/steps" "$tmp/nodes" >"$tmp/todo" || fail "5: a level cannot be computed"
		# Neighbors meet on the way: each node is computed once.
		cut -d' ' -f2 "$tmp/todo" | sort -u >"$tmp/once" || fail "5: a level cannot be computed"
		hash 65 <"$tmp/once" >"$tmp/done" || fail "5: a level cannot be computed"
		[ "$(wc -l <"$tmp/once")" -eq "$(wc -l <"$tmp/done")" ] || fail "5: a level cannot be computed"
		paste -d' ' "$tmp/once" "$tmp/done" >"$tmp/map" || fail "5: a level cannot be computed"
		awk 'FILENAME == ARGV[1] { node[$1] = $2; next }
			FILENAME == ARGV[2] { todo[$1] = $2; next }
			{ print $1, ($1 in todo) ? node[todo[$1]] : $2 }' "$tmp/map" "$tmp/todo" "$tmp/nodes" >"$tmp/next" && mv "$tmp/next" "$tmp/nodes" || fail "5: a level cannot be computed"
		level=$((level + 1))
	done
	bad=$(awk -v root="$now_root" '$2 != root { print $1; exit }' "$tmp/nodes")
	[ -z "$bad" ] || fail "5: the record $bad is not in the log"
fi
echo "5. $(wc -l <"$tmp/numbers") records are in the log"

# 6. The evidence is what the records bind.
grep -vE '^[0-9a-f]{64} [0-9a-f]{64} evidence/[0-9a-z-]{1,64}/[0-9]{6}-[0-9a-f]{32}\.(batch|manifest|file)$' proof/objects.txt >"$tmp/odd" && fail "6: proof/objects.txt has a line that is none"
cut -d' ' -f3 proof/objects.txt >"$tmp/opened"
[ ! -s "$tmp/opened" ] || sort -c -u "$tmp/opened" 2>/dev/null || fail "6: proof/objects.txt is not in order, or opens an object twice"
awk 'FILENAME == ARGV[1] { digest[substr($0, 67)] = substr($0, 1, 64); next }
	!($3 in digest) { exit 1 }
	{ print "7374656e6f2d706c61696e2d763100" $2 digest[$3] }' SHA256SUMS proof/objects.txt >"$tmp/opening" || fail "6: proof/objects.txt opens what is not there"
hash 79 <"$tmp/opening" >"$tmp/commits" || fail "6: the commitments cannot be computed"
cut -d' ' -f1 proof/objects.txt | cmp -s - "$tmp/commits" || fail "6: $(paste -d' ' "$tmp/commits" proof/objects.txt | awk '$1 != $2 { print $4; exit }') is not what was committed to"
grep '^{"action":"seal",' "$tmp/lines" >"$tmp/seals"
{
	grep -o '{"commit":"[0-9a-f]\{64\}","object":"[0-9a-f]\{32\}","seq":[0-9]*,"sha256":"[0-9a-f]\{64\}","unit":"[0-9a-z-]*"}' "$tmp/seals" |
		sed 's/^{"commit":"\([^"]*\)","object":"\([^"]*\)","seq":\([0-9]*\),"sha256":"[^"]*","unit":"\([^"]*\)"}$/bound \4 \3 \2 \1/'
	grep -o '{"object":"[0-9a-f]\{32\}","seq":[0-9]*,"unit":"[0-9a-z-]*","void":true}' "$tmp/seals" |
		sed 's/^{"object":"\([^"]*\)","seq":\([0-9]*\),"unit":"\([^"]*\)","void":true}$/void \3 \2 \1/'
} >"$tmp/entries"
awk 'FILENAME == ARGV[1] { if ($1 == "bound") seen[$2 " " $3 " " $4 " " $5] = 1; next }
	{ split($3, p, "/"); seq = substr(p[3], 1, 6) + 0; object = substr(p[3], 8, 32)
	  if (!((p[2] " " seq " " object " " $1) in seen)) { print $3; exit } }' "$tmp/entries" proof/objects.txt >"$tmp/odd"
[ ! -s "$tmp/odd" ] || fail "6: no record binds $(cat "$tmp/odd")"
grep -o '{"objects":[0-9]*,"unit":"[0-9a-z-]*","unproven":\[[^]]*\]}' package.json |
	sed 's/^{"objects":\([0-9]*\),"unit":"\([^"]*\)","unproven":\[\(.*\)\]}$/\2 \1 \3/; s/[",]/ /g' >"$tmp/units"
grep -E '^evidence/[0-9a-z-]{1,64}/[0-9]{6}-[0-9a-f]{32}\.(batch|manifest|file)$' "$tmp/listed" >"$tmp/objects"
awk 'FILENAME == ARGV[1] { for (i = 3; i <= NF; i++) unproven[$1 " " $i] = 1; next }
	FILENAME == ARGV[2] { opened[$0] = 1; next }
	{ split($0, p, "/"); key = p[2] " " substr(p[3], 8, 32)
	  if (($0 in opened) == (key in unproven)) { print $0; exit } }' "$tmp/units" "$tmp/opened" "$tmp/objects" >"$tmp/odd"
[ ! -s "$tmp/odd" ] || fail "6: $(cat "$tmp/odd") is neither bound nor said to be unproven, or both"
unproven=$(awk '{ n += NF - 2 } END { print n + 0 }' "$tmp/units")
echo "6. $(wc -l <"$tmp/opened") objects are what the log binds"

# 7. None is left out.
grep -E '^\{"action":"(dispose|erase)",' "$tmp/lines" | sed -n 's/^.*"item":"\([0-9a-z-]*\)",.*$/\1/p' >"$tmp/gone"
awk 'FILENAME == ARGV[1] { units[$1] = $2; next }
	FILENAME == ARGV[2] { split($0, p, "/"); seq = substr(p[3], 1, 6) + 0
	  if (!(p[2] in units)) { print "a unit that package.json does not name: " p[2]; stop = 1; exit }
	  have[p[2] " " seq]++; next }
	FILENAME == ARGV[3] { if ($1 == "void" && $2 in units) { void[$2 " " $3] = 1 }
	  if ($2 in units && $3 + 0 >= units[$2] + 0) { print "a record binds number " $3 " of " $2 ", which package.json does not count"; stop = 1; exit } next }
	{ gone[$1] = 1 }
	END { if (stop) exit
	  for (u in units) for (i = 0; i < units[u]; i++) { k = u " " i
	    n = have[k] + ((k in void) ? 1 : 0)
	    if (n > 1) { print "number " i " of " u " is there twice"; exit }
	    if (n == 0 && !(u in gone)) { print "number " i " of " u " is missing"; exit } }
	  for (k in have) { split(k, p, " "); if (p[2] + 0 >= units[p[1]] + 0) { print "number " p[2] " of " p[1] " is not counted"; exit } } }' \
	"$tmp/units" "$tmp/objects" "$tmp/entries" "$tmp/gone" >"$tmp/odd"
[ ! -s "$tmp/odd" ] || fail "7: $(head -n 1 "$tmp/odd")"
echo "7. no object of $(wc -l <"$tmp/units") units is left out"

# 8. Each bundle is the one its manifest names.
grep -E '^evidence/[0-9a-z-]{1,64}/000000-[0-9a-f]{32}\.manifest$' "$tmp/objects" >"$tmp/manifests"
while read -r manifest; do
	unit=${manifest#evidence/}
	unit=${unit%%/*}
	grep -o '{"seq":[0-9]*,\("part":[0-9]*,\)\{0,1\}"from":"[^"]*","to":"[^"]*","object":"[0-9a-f]\{32\}","pack":-\{0,1\}[0-9]*,"body":[0-9]*,"sha256":"[0-9a-f]\{64\}","plain":"[0-9a-f]\{64\}"}' "$manifest" |
		sed 's/"from":.*"object":"\([^"]*\)".*"plain":"\([^"]*\)"}$/ \1 \2/; s/^{"seq":\([0-9]*\),"part":\([0-9]*\),/\1 \2/; s/^{"seq":\([0-9]*\),/\1 0/' |
		awk -v unit="$unit" '{ printf "%s  evidence/%s/bundles/%06d-%d-%s.bundle\n", $4, unit, $1, $2, $3 }'
	[ "$(grep -o '"body":[0-9]*' "$manifest" | wc -l)" -eq "$(grep -o '"plain":"[0-9a-f]\{64\}"' "$manifest" | wc -l)" ] || echo "a bundle without a digest in $manifest"
done <"$tmp/manifests" | sort >"$tmp/named"
grep -E '^[0-9a-f]{64}  evidence/[0-9a-z-]{1,64}/bundles/' SHA256SUMS | sort | cmp -s - "$tmp/named" || fail "8: the bundles are not those that the manifests name"
[ "$(grep -c '^evidence/' "$tmp/listed")" -eq "$(($(wc -l <"$tmp/objects") + $(wc -l <"$tmp/named")))" ] || fail "8: evidence/ holds something that is no evidence"
echo "8. $(wc -l <"$tmp/named") bundles are what the manifests name"

# 9. The extract is the records.
cmp -s "$tmp/lines" custody/extract.ndjson || fail "9: custody/extract.ndjson is not the records"
{
	grep -o '"path":"[^"]*"' package.json | sed 's/^"path":"\(.*\)"$/\1/'
	grep -o '"from":\[[^]]*\]' package.json | sed 's/^"from":\[\(.*\)\]$/\1/' | tr ',' '\n' | sed 's/"//g; s|^|from |'
} >"$tmp/made"
awk 'FILENAME == ARGV[1] { there[$0] = 1; next }
	$1 == "from" { if ($2 != "" && (!($2 in there) || $2 !~ /^evidence\//)) { print $2; exit } next }
	!($0 in there) || /^(evidence|proof)\// { print $0; exit }' "$tmp/listed" "$tmp/made" >"$tmp/odd" || fail "9: package.json cannot be read"
[ ! -s "$tmp/odd" ] || fail "9: package.json speaks of $(cat "$tmp/odd"), which is not there, or not what it says"
echo "9. custody/extract.ndjson is the records; what was made out of the evidence is there"

# 10. The log continues what was seen of it before.
if [ -n "$older" ]; then
	# As a witness keeps it, the fourth line is its signature.
	printf %s "${older%x}" >"$tmp/older"
	if [ "$(wc -l <"$tmp/older")" -eq 4 ]; then
		sed -n 4p "$tmp/older" | base64 -d >"$tmp/older.sig" 2>/dev/null || fail "10: the fourth line of the older checkpoint is no signature"
		older=$(sed -n 1,3p "$tmp/older" && echo x)
		printf %s "${older%x}" >"$tmp/older"
		openssl dgst -sha256 -verify "keys/$key.pem" -signature "$tmp/older.sig" "$tmp/older" >/dev/null 2>&1 ||
			fail "10: the older checkpoint is not signed by the key of this package; if an earlier key of the log signed it, verify it by that key and give its first three lines alone"
	fi
	checkpoint "${older%x}" || fail "10: the older checkpoint is of another log, or none"
	old_size=$size
	old_root=$root
	[ "$old_size" -le "$now_size" ] || fail "10: rollback: from $old_size records to $now_size"
	if [ "$old_size" -eq "$now_size" ]; then
		[ "$old_root" = "$now_root" ] || fail "10: split view: two roots of $now_size records: $old_root and $now_root"
	elif [ "$old_size" -gt 0 ]; then
		# RFC 9162 section 2.1.4.2.
		file=proof/consistency/$old_size.txt
		[ -f "$file" ] || fail "10: the package has no proof for a checkpoint of $old_size records"
		grep -vE '^[0-9a-f]{64}$' "$file" >/dev/null && fail "10: $file has a line that is no hash"
		fn=$((old_size - 1))
		sn=$((now_size - 1))
		cp "$file" "$tmp/path" || fail "10: $file cannot be read"
		[ $((old_size & fn)) -ne 0 ] || { echo "$old_root" && cat "$file"; } >"$tmp/path"
		while [ $((fn & 1)) -eq 1 ]; do
			fn=$((fn >> 1))
			sn=$((sn >> 1))
		done
		fr=$(sed -n 1p "$tmp/path")
		sr=$fr
		for c in $(sed 1d "$tmp/path"); do
			[ "$sn" -ne 0 ] || fail "10: split view: the proof for $old_size records is too long"
			if [ $((fn & 1)) -eq 1 ] || [ "$fn" -eq "$sn" ]; then
				fr=$(echo "01$c$fr" | hash 65)
				sr=$(echo "01$c$sr" | hash 65)
				while [ $((fn & 1)) -eq 0 ] && [ "$fn" -ne 0 ]; do
					fn=$((fn >> 1))
					sn=$((sn >> 1))
				done
			else
				sr=$(echo "01$sr$c" | hash 65)
			fi
			fn=$((fn >> 1))
			sn=$((sn >> 1))
		done
		[ "$fr" = "$old_root" ] && [ "$sr" = "$now_root" ] && [ "$sn" -eq 0 ] || fail "10: split view: $old_size records with root $old_root are not continued by $now_size with root $now_root"
	fi
	echo "10. the log continues the older checkpoint of $old_size records"
fi

if [ -z "$fingerprint" ]; then
	echo "UNVERIFIED: the package agrees with itself, as a forged one would. Give the fingerprint of the signing key."
	exit 3
fi
if [ "$unproven" -ne 0 ]; then
	echo "UNVERIFIED: $unproven objects are not bound by the log yet"
	exit 3
fi
echo "VERIFIED"
