%% Supervises the keepers, of which a release handler learns through it.
-module(hot_subject_keepers).
-behaviour(supervisor).
-export([start_link/1, init/1]).

start_link(Keepers) ->
    {ok, Pid} = supervisor:start_link({local, ?MODULE}, ?MODULE, []),
    [{ok, _} = supervisor:start_child(Pid, [Number]) || Number <- lists:seq(1, Keepers)],
    {ok, Pid}.

init([]) ->
    {ok, {#{strategy => simple_one_for_one},
        [#{id => keeper, start => {hot_subject_keeper, start_link, []}, modules => [hot_subject_keeper]}]}}.
