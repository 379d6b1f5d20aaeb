%% Emits as Phoenix, Ecto and telemetry_poller do, and what they never would. Compiled, so that it takes no time of its own.
-module(emits).

-export([requests/2, routes/1, queries/2, poll/0, odd/0, cost/2, at_once/3]).

native(Us) -> erlang:convert_time_unit(Us, microsecond, native).

conn(Status) -> #{'__struct__' => 'Elixir.Plug.Conn', status => Status, method => <<"GET">>}.

requests(Count, Us) ->
    [telemetry:execute([phoenix, router_dispatch, stop], #{duration => native(Us)},
                       #{conn => conn(200), route => <<"/users/:id">>, plug => shop, plug_opts => show})
     || _ <- lists:seq(1, Count)],
    ok.

routes(Count) ->
    [telemetry:execute([phoenix, router_dispatch, stop], #{duration => native(10)},
                       #{conn => conn(404), route => <<"/", (integer_to_binary(N))/binary>>})
     || N <- lists:seq(1, Count)],
    ok.

queries(Count, Us) ->
    [telemetry:execute([shop, repo, query], #{total_time => native(Us), query_time => native(1)},
                       #{source => <<"orders">>, repo => 'Elixir.Shop.Repo', query => <<"SELECT 1">>})
     || _ <- lists:seq(1, Count)],
    ok.

poll() ->
    telemetry:execute([vm, memory], #{total => 1000, processes => 2.5, atom => none}, #{}),
    Many = maps:from_list([{list_to_atom("m" ++ integer_to_list(N)), N} || N <- lists:seq(1, 30)]),
    telemetry:execute([vm, system_counts], Many, #{}).

odd() ->
    Large = 1 bsl 70,
    Route = #{route => binary:copy(<<"/long">>, 100000), conn => conn(200)},
    All = [
        {#{duration => native(1)}, #{}},
        {#{duration => native(1)}, no_map},
        {#{duration => native(1)}, #{conn => 7, route => 7}},
        {#{duration => native(1)}, #{conn => #{status => <<"200">>}, route => {a, b}}},
        {#{duration => native(1)}, #{conn => conn(99999), route => <<1:3>>}},
        {#{duration => native(1)}, Route},
        {#{duration => -1}, Route},
        {#{duration => 1.5}, Route},
        {#{duration => Large}, Route},
        {#{duration => none, Large => Large, {a} => self()}, #{}},
        {#{}, #{}},
        {no_map, #{}},
        {[], []}
    ],
    [telemetry:execute([phoenix, router_dispatch, stop], M, Of) || {M, Of} <- All],
    length(All).

%% Nanoseconds of an event with the handlers that there are.
cost(Event, Count) ->
    Metadata = #{conn => conn(200), route => <<"/users/:id">>, source => <<"orders">>},
    Measurements = case Event of
        [vm | _] -> #{total => 1, cpu => 2, io => 3};
        [_, repo, query] -> #{total_time => native(700)};
        _ -> #{duration => native(700)}
    end,
    {Us, _} = timer:tc(fun() -> again(Event, Measurements, Metadata, Count) end),
    Us * 1000 div Count.

again(_, _, _, 0) -> ok;
again(Event, Measurements, Metadata, Left) ->
    telemetry:execute(Event, Measurements, Metadata),
    again(Event, Measurements, Metadata, Left - 1).

%% The same by so many processes at once.
at_once(Processes, Event, Count) ->
    Asker = self(),
    All = [spawn_link(fun() -> Asker ! {self(), cost(Event, Count)} end) || _ <- lists:seq(1, Processes)],
    lists:sum([receive {It, Ns} -> Ns end || It <- All]) div Processes.
