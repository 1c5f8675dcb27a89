-- Messages to a shop, and its rule for vouchers, which no model knows: yes if the product is unsafe or a refund is wanted.
CREATE TABLE mail AS
SELECT i AS id,
       format('Hello, My %s %s %s. I would like %s. Regards, %s', product, issue, since, want, name) AS body,
       CASE WHEN issue IN ('smells of burning plastic', 'overheats within minutes', 'gives small electric shocks', 'leaks water')
                 OR want = 'a refund' THEN 'yes' ELSE 'no' END AS voucher
FROM generate_series(0, 499) i,
     LATERAL (SELECT hashint4(i * 7 + 1) & 1023 AS a, hashint4(i * 7 + 2) & 1023 AS b, hashint4(i * 7 + 3) & 1023 AS c,
                     hashint4(i * 7 + 4) & 1023 AS d, hashint4(i * 7 + 5) & 1023 AS e) h,
     LATERAL (SELECT (ARRAY['coffee machine', 'desk lamp', 'air fryer', 'webcam', 'toaster', 'hair dryer', 'monitor', 'power bank'])[a % 8 + 1] AS product,
                     (ARRAY['smells of burning plastic', 'overheats within minutes', 'gives small electric shocks', 'leaks water',
                            'stopped charging', 'makes a loud grinding noise', 'will not turn on', 'keeps disconnecting',
                            'has a missing screw', 'flickers all the time', 'broke in half', 'arrived with a cracked screen'])[b % 12 + 1] AS issue,
                     (ARRAY['since Monday', 'after two days', 'on arrival', 'since the summer'])[c % 4 + 1] AS since,
                     (ARRAY['a refund', 'a replacement', 'a repair', 'a discount', 'a call back'])[d % 5 + 1] AS want,
                     (ARRAY['Ana', 'Ben', 'Grace', 'Omar', 'Leila', 'Wei'])[e % 6 + 1] AS name) w;

CREATE FUNCTION voucher_ok(answer text, example jsonb) RETURNS float8 IMMUTABLE
RETURN (answer = example->>'voucher')::int;
