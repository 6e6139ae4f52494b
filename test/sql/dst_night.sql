--
-- The nights when clocks change, as the demonstration prints them.
--
\getenv test_directory PG_ABS_SRCDIR
\set demonstration :test_directory '/../demo/dst_night.sql'
\set ECHO none
\i :demonstration
