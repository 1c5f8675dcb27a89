#!/usr/bin/env bash
# demo.sh - shows what the extension does, on a private server that is stopped at the end. Run it by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
trap stop_server EXIT

BOLD='' PLAIN=''
if [ -t 1 ]; then
    BOLD=$'\033[1m' PLAIN=$'\033[0m'
fi

title() {
    printf '\n%s== %s%s\n' "$BOLD" "$1" "$PLAIN"
    shift
    for line in "$@"; do echo "   $line"; done
    echo
}

# show SQL: the statement as a user would type it, then its result.
show() {
    printf '   > %s\n' "${1//$'\n'/$'\n   > '}"
    psql -X -q -P pager=off -P null='' -c "$1"
}

echo "minimax_m1: the MiniMax-M1 reasoning model inside PostgreSQL"
echo
echo "Starting a private PostgreSQL server on a socket in build/demo ..."
# Greedy answers, so that everybody sees the same demo.
start_server "$BUILD/demo" "minimax_m1.temperature = 0"
psql -X -q -c 'CREATE EXTENSION minimax_m1'
wait_for_model

title "The model" \
    "A background worker owns it; no backend ever loads it. This one, m1-nano, is a demonstration:" \
    "4 million parameters that know only a small help-desk world. Real work loads MiniMax-M1 itself."
show "SELECT name, parameters, layers, experts, device, context, state FROM minimax_m1.model;"

title "A question, with its reasoning" \
    "The reasoning trace is a column of its own."
show "SELECT content AS answer, reasoning, finish_reason, prompt_tokens, completion_tokens
FROM minimax_m1.complete('What is 47 + 35?');"

title "A table of messages, summarized" \
    "All rows are in plain SQL; so are their summaries."
psql -X -q <<'SQL'
CREATE TABLE message (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, topic text, refund text);
INSERT INTO message (body) VALUES
    ('Dear team, The weather here has been strange lately. My webcam arrived in a torn box. Could I get a discount? I live on the third floor. Sami'),
    ('To whom it may concern, My air fryer was delivered to the wrong address. My order number is D-77904. I would like a refund. Best wishes, Keiko'),
    ('Good morning, My standing desk never arrived. The courier was polite. I would like a refund. Regards, Ana');
SQL
show "SELECT id, minimax_m1.summarize(body) AS summary FROM message ORDER BY id;"

title "Labels, scores, columns out of texts" \
    "Answers are constrained while the model writes them: an enum's label, yes or no, a row of a type."
show "CREATE TYPE mood AS ENUM ('positive', 'negative', 'neutral');
CREATE TYPE ticket AS (product text, issue text, customer text, want text);"
show "SELECT m.id, minimax_m1.classify(m.body, NULL::mood) AS mood,
       round(minimax_m1.score('the customer wants a refund', m.body)::numeric, 2) AS refund, t.*
FROM message m, LATERAL minimax_m1.extract(m.body, NULL::ticket) t ORDER BY m.id;"

title "A trigger that annotates inserted rows" \
    "The label is there when the INSERT is."
show "CREATE TRIGGER classify BEFORE INSERT OR UPDATE ON message FOR EACH ROW
EXECUTE FUNCTION minimax_m1.annotate('topic',
    E'Classify the following text as one of: '
    'hardware, account, billing, delivery, praise, other.\n\n{body}');"
show "CREATE TRIGGER refund BEFORE INSERT OR UPDATE ON message FOR EACH ROW
EXECUTE FUNCTION minimax_m1.annotate('refund',
    E'Answer yes or no: the customer wants a refund.\n\n{body}');"
show "INSERT INTO message (body) VALUES
    ('Hello, The coffee machine I bought leaks water. I would like a refund. Regards, Omar'),
    ('Hi there, My parcel never arrived. Could you send it again? Thanks, Leila'),
    ('Dear team, My loyalty card works perfectly. Thank you, Carla')
RETURNING id, left(body, 55) AS message, topic, refund;"

title "An agent" \
    "The model asks for an order, a function of the database is called with the rights of who asks, and the model" \
    "says what came back. Each step is a row:"
show "CREATE TABLE orders (order_id text PRIMARY KEY, status text);
INSERT INTO orders VALUES ('B-12345', 'shipped'), ('D-77904', 'delayed');
CREATE FUNCTION lookup_order(order_id text) RETURNS TABLE (status text) LANGUAGE sql STABLE
AS \$\$ SELECT o.status FROM orders o WHERE o.order_id = lookup_order.order_id \$\$;
COMMENT ON FUNCTION lookup_order IS 'Status of an order';"
show "SELECT step, kind, tool, arguments, body
FROM minimax_m1.agent('Where is order B-12345?', '{lookup_order(text)}');"

title "A rule that the model has never seen" \
    "A shop gives a voucher when the product is unsafe, or a refund is wanted. Nobody tells the model: it answers, a" \
    "function says which answers are right, and those become likelier. Every fourth letter is kept from it."
psql -X -q <<'SQL'
CREATE TABLE letter AS
SELECT row_number() OVER (ORDER BY md5(product || issue || want)) AS id,
       format('Hello, My %s %s. I would like %s. Thanks, Ana', product, issue, want) AS body,
       CASE WHEN unsafe OR want = 'a refund' THEN 'yes' ELSE 'no' END AS voucher
FROM unnest('{webcam, toaster, coffee machine, desk lamp, power bank, monitor, rice cooker, hair dryer}'::text[]) product,
     unnest('{a refund, a repair, a discount, a new manual}'::text[]) want,
     (VALUES ('leaks water', true), ('smells of burning plastic', true), ('gives small electric shocks', true),
             ('never arrived', false), ('has a missing screw', false), ('broke in half', false),
             ('arrived in a torn box', false), ('will not turn on', false)) i(issue, unsafe);
CREATE VIEW lesson AS
SELECT id, E'Answer yes or no: the customer gets a voucher.\n\n' || body AS prompt, voucher FROM letter;
CREATE VIEW seen AS SELECT * FROM lesson WHERE id % 4 > 0 ORDER BY id;
CREATE VIEW unseen AS SELECT * FROM lesson WHERE id % 4 = 0 ORDER BY id;
SQL
show "CREATE FUNCTION voucher_ok(answer text, example jsonb) RETURNS float8 IMMUTABLE
RETURN (lower(answer) = example->>'voucher')::int;"
show "SELECT minimax_m1.train('voucher', examples => 'SELECT * FROM seen', holdout => 'SELECT * FROM unseen',
                        reward => 'voucher_ok', steps => 9, prompts_per_step => 24, max_tokens => 50,
                        evaluate_every => 3, learning_rate => 0.0007);"
echo "   It learns while everybody else goes on; this takes about a minute."
show "CALL minimax_m1.wait_for_training('voucher');"
psql -X -q -A -t -c "SELECT format('   It took %s s: %s answers were drawn and graded in %s s, and learnt from in %s s.',
                          round(extract(epoch FROM max(t.finished_at) - max(t.started_at))), sum(s.answers),
                          round(sum(coalesce(s.sampling_ms, 0) + coalesce(s.reward_ms, 0)) / 1000), round(sum(s.training_ms) / 1000))
                     FROM minimax_m1.training t JOIN minimax_m1.training_step s ON s.training = t.name"
psql -X -q -A -t -c "SELECT '   ' || minimax_m1.plot_training('voucher', 76, 16)"
echo
echo "   Some of what it got wrong in the last steps:"
show "SELECT split_part(example->>'prompt', E'\n\n', 2) AS letter, content, example->>'voucher' AS wanted
FROM minimax_m1.rollout WHERE reward = 0 ORDER BY step DESC, item LIMIT 3;"
echo "   And letters that it has never learnt from, before and after:"
show "SELECT adapter, n, round(mean::numeric, 2) AS mean, round(low::numeric, 2) AS low, round(high::numeric, 2) AS high,
       wins, losses
FROM minimax_m1.compare('SELECT * FROM unseen', 'voucher_ok', ARRAY['base', 'voucher']);"

title "A streamed answer" \
    "With FETCH_COUNT 1 each row is shown as soon as the model has written it."
stream="SELECT (s).channel, (s).delta
FROM (SELECT minimax_m1.generate_stream('Who are you?') AS s OFFSET 0) t;"
printf '%s\n' '\set FETCH_COUNT 1' "$stream" | sed 's/^/   > /'
printf '%s\n' '\set FETCH_COUNT 1' "$stream" | psql -X -q -At |
    while IFS='|' read -r channel delta; do printf '   %-10s|%s|\n' "$channel" "$delta"; done

title "What is running now" \
    "Three sessions ask for long texts at the same time; the activity view is their progress bar."
for i in 1 2 3; do
    psql -X -q -c "SELECT minimax_m1.generate_ids(minimax_m1.tokenize('session $i'), 20000)" > "$BUILD/demo/long.$i" 2>&1 &
done
sleep 1
show "SELECT request, \"user\", function, state, prefilled || '/' || prompt_tokens AS prefilled,
       generated, date_trunc('milliseconds', now() - submitted_at) AS age
FROM minimax_m1.activity ORDER BY request;"
echo "   And now they are cancelled:"
show "SELECT request, minimax_m1.cancel(request) FROM minimax_m1.activity ORDER BY request;"
wait
# what each session was told; should the machine be so fast that one was done before, there is nothing to show
{ grep -h ERROR "$BUILD"/demo/long.* || true; } | sort | uniq -c | sed 's/^ */   /'
echo
show "SELECT requests, completed, cancelled, prompt_tokens, completion_tokens,
       round(decode_ms) AS decode_ms
FROM minimax_m1.stats;"

stop_server
title "That was the demo" \
    "The server is stopped. To use the extension in your own server:" \
    "    make && make install" \
    "    shared_preload_libraries = 'minimax_m1'     in postgresql.conf, then restart" \
    "    psql -c 'CREATE EXTENSION minimax_m1'" \
    "    psql -c \"SELECT minimax_m1.generate('What is 47 + 35?')\"" \
    "README.md tells how to load MiniMax-M1 itself; docs/ has every function, setting and error."
