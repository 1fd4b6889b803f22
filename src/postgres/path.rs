//! The search path, and who may put something before the server's own.
//!
//! PostgreSQL takes a function or an operator in any schema of the path before its own in `pg_catalog` where
//! the types fit the call better. So statements of jetcopy leave no choice: each call either has the very
//! types of one in `pg_catalog`, or names that schema. Two things cannot be written so: migrations that make
//! tables where the path says, and what people make themselves. What is here looks for those who could step
//! in between; it names `pg_catalog` throughout.

use tokio_postgres::{Client, Error};

/// Whom one need not fear: superusers, the owners of the database and of schema `jetcopy`, oneself, and roles
/// that one, or that owner, is a member of. So it is with the owner of the schema, whose tables' triggers run
/// with one's rights anyway.
const TRUSTED: &str = "SELECT r.oid FROM pg_catalog.pg_roles r
    JOIN pg_catalog.pg_roles me ON me.rolname OPERATOR(pg_catalog.=) current_user
    WHERE r.rolsuper OR r.oid OPERATOR(pg_catalog.=) me.oid
        OR (NOT me.rolsuper AND pg_catalog.pg_has_role(r.oid::pg_catalog.oid, 'USAGE'::pg_catalog.text))
        OR r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
        OR EXISTS (SELECT FROM pg_catalog.pg_namespace j
            JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) j.nspowner
            WHERE j.nspname OPERATOR(pg_catalog.=) 'jetcopy' AND (o.oid OPERATOR(pg_catalog.=) r.oid
                OR (NOT o.rolsuper AND pg_catalog.pg_has_role(o.oid, r.oid, 'MEMBER'::pg_catalog.text))))
        OR r.oid OPERATOR(pg_catalog.=) (SELECT d.datdba FROM pg_catalog.pg_database d
            WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())";

/// The schemas of the path.
const PATH: &str = "SELECT n.oid, n.nspname, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace n
    WHERE n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))";

/// Functions and operators of others in the path that have the name of the server's own, or of an
/// extension's, and only types of the server's own.
fn shadows_sql() -> String {
    format!(
        "WITH trusted AS ({TRUSTED}), path AS ({PATH})
    SELECT pg_catalog.format('function %s of role %I', p.oid::pg_catalog.regprocedure,
        pg_catalog.pg_get_userbyid(p.proowner))
    FROM pg_catalog.pg_proc p
    WHERE EXISTS (SELECT FROM path WHERE path.oid OPERATOR(pg_catalog.=) p.pronamespace
            AND path.nspowner OPERATOR(pg_catalog.<>) p.proowner)
        AND p.proowner OPERATOR(pg_catalog.<>) ALL (SELECT oid FROM trusted)
        AND EXISTS (SELECT FROM pg_catalog.pg_proc own WHERE own.proname OPERATOR(pg_catalog.=) p.proname
            AND own.oid OPERATOR(pg_catalog.<>) p.oid AND (
                own.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid
                OR EXISTS (SELECT FROM pg_catalog.pg_depend e
                    WHERE e.classid OPERATOR(pg_catalog.=)
                        'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
                        AND e.objid OPERATOR(pg_catalog.=) own.oid AND e.deptype OPERATOR(pg_catalog.=) 'e')))
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
            WHERE e.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
                AND e.objid OPERATOR(pg_catalog.=) p.oid AND e.deptype OPERATOR(pg_catalog.=) 'e')
        AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) AS a (type)
            JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.type
            WHERE t.typnamespace OPERATOR(pg_catalog.<>)
                'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid)
    UNION ALL
    SELECT pg_catalog.format('operator %s of role %I', o.oid::pg_catalog.regoperator,
        pg_catalog.pg_get_userbyid(o.oprowner))
    FROM pg_catalog.pg_operator o
    WHERE EXISTS (SELECT FROM path WHERE path.oid OPERATOR(pg_catalog.=) o.oprnamespace
            AND path.nspowner OPERATOR(pg_catalog.<>) o.oprowner)
        AND o.oprowner OPERATOR(pg_catalog.<>) ALL (SELECT oid FROM trusted)
        AND EXISTS (SELECT FROM pg_catalog.pg_operator own WHERE own.oprname OPERATOR(pg_catalog.=) o.oprname
            AND own.oprnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t
            WHERE (t.oid OPERATOR(pg_catalog.=) o.oprleft OR t.oid OPERATOR(pg_catalog.=) o.oprright)
                AND t.typnamespace OPERATOR(pg_catalog.<>)
                    'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid)
    ORDER BY 1 LIMIT 20"
    )
}

/// Schemas of the path, with a role that may create in it and is not trusted.
fn open_sql() -> String {
    format!(
        "WITH trusted AS ({TRUSTED}), path AS ({PATH})
    SELECT pg_catalog.quote_ident(path.nspname::pg_catalog.text), CASE a.grantee::pg_catalog.int8 WHEN 0
        THEN 'PUBLIC'
        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text) END
    FROM path, pg_catalog.aclexplode(path.nspacl) AS a
    WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
        AND a.grantee OPERATOR(pg_catalog.<>) ALL (SELECT oid FROM trusted)
        AND a.grantee OPERATOR(pg_catalog.<>) path.nspowner
    ORDER BY 1, 2"
    )
}

/// Functions and operators in the path that would be called in place of the server's own, as text; at most
/// twenty.
pub async fn shadows(client: &Client) -> Result<Vec<String>, Error> {
    client.query_typed(&shadows_sql(), &[]).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Each schema of the path where somebody may create who is not trusted, and whom that was granted to.
pub async fn open(client: &Client) -> Result<Vec<(String, String)>, Error> {
    let rows = client.query_typed(&open_sql(), &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
