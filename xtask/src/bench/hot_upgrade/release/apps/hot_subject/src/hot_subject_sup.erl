-module(hot_subject_sup).
-behaviour(supervisor).
-export([start_link/2, init/1]).

start_link(Keepers, Port) ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, {Keepers, Port}).

init({Keepers, Port}) ->
    hot_subject_keepers = ets:new(hot_subject_keepers, [named_table, public, {read_concurrency, true}]),
    {ok, {#{strategy => one_for_one}, [
        #{id => keepers, start => {hot_subject_keepers, start_link, [Keepers]}, type => supervisor},
        #{id => listener, start => {hot_subject_listener, start_link, [Keepers, Port]}}
    ]}}.
